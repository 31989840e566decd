
/* Tables: a click on a heading sorts. */
for (const table of all("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const order = head.getAttribute("aria-sort") === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const cell = row.cells[column];
        return numeric ? parseFloat(cell.dataset.sort ?? "NaN") : cell.textContent;
      };
      const compare = (left, right) => {
        const [a, b] = [value(left), value(right)];
        if (!numeric) return sign * a.localeCompare(b);
        // Rows without a value stay at the end in either order.
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return sign * (a - b);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
    });
  });
}

/* Charts, each with what a reader may choose. */
function chart(figure) {
  const name = figure.dataset.chart;
  const drawn = figure.querySelector(".drawn");
  const controls = figure.querySelector(".controls");
  const label = drawn.querySelector("svg")?.getAttribute("aria-label") ?? "";
  const selects = {};
  for (const [key, [text, options]] of Object.entries(choices[name]())) {
    const select = make("select");
    for (const option of options) {
      const [said, value] = Array.isArray(option) ? option : [option, option];
      select.append(make("option", { value, textContent: shorten(said, 48), selected: said === overall }));
    }
    select.addEventListener("change", () => redraw(true));
    selects[key] = select;
    if (options.length > 1) controls.append(make("label", {}, `${text} `, select));
  }
  const legend = make("div", { className: "legend" });
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "Methods shown");
  data.rows.forEach((row, place) => {
    if (row.role !== "method") return;
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = row.colour;
    const chip = make("button", { type: "button", className: "chip" }, swatch, shorten(row.name, 32));
    chip.dataset.place = place;
    chip.addEventListener("click", () => toggle("row", String(place)));
    legend.append(chip);
  });
  if (legend.childElementCount > 1) controls.append(legend);
  let last = 0;
  function redraw(force) {
    const width = Math.min(drawn.clientWidth, 960);
    if (!width || (!force && width === last)) return;
    last = width;
    const chosen = Object.fromEntries(Object.entries(selects).map(([key, select]) => [key, select.value]));
    const options = draw[name](width, chosen);
    const made = options && Plot.plot({ ...options, ariaLabel: label });
    made?.setAttribute("role", "img");
    drawn.classList.add("live");
    drawn.replaceChildren(made ?? make("p", { textContent: "Nothing is left to draw. Show a method, or choose another column." }));
  }
  controls.hidden = false;
  new ResizeObserver(() => redraw(false)).observe(drawn);
  redraw(true);
  return redraw;
}
const redraws = data ? all("figure[data-chart]").map(chart) : [];

/* Filters: of rows, columns and lines, by method and task. */
function toggle(kind, value, show = hidden[kind].has(value)) {
  hidden[kind][show ? "delete" : "add"](value);
  refresh();
}

function refresh() {
  for (const part of all("[data-rows], [data-task]")) {
    const rows = part.dataset.rows?.split(" ") ?? [];
    const out = rows.some((place) => hidden.row.has(place)) || hidden.task.has(part.dataset.task);
    part.toggleAttribute("data-hidden", out);
  }
  for (const box of all("[data-filter] input[type=checkbox]")) {
    box.checked = !hidden[box.closest("[data-filter]").dataset.filter].has(box.value);
  }
  for (const chip of all(".chip")) chip.setAttribute("aria-pressed", shown(chip.dataset.place));
  const count = hidden.row.size + hidden.task.size;
  document.querySelector(".count").textContent = count ? `(${count} hidden)` : "";
  for (const redraw of redraws) redraw(true);
}

for (const set of all("[data-filter]")) {
  const kind = set.dataset.filter;
  const boxes = all("input[type=checkbox]", set);
  for (const box of boxes) {
    const row = kind === "row" && data?.rows[box.value];
    const swatch = box.parentElement.querySelector(".swatch");
    if (row) swatch.style.background = row.colour;
    else swatch?.remove();
    box.addEventListener("change", () => toggle(kind, box.value, box.checked));
  }
  const search = set.querySelector("input[type=search]");
  search.addEventListener("input", () => {
    for (const box of boxes) box.parentElement.hidden = !box.parentElement.textContent.toLowerCase().includes(search.value.toLowerCase());
  });
  for (const button of all("[data-all]", set)) {
    button.addEventListener("click", () => {
      for (const box of boxes.filter((item) => !item.parentElement.hidden)) hidden[kind][button.dataset.all ? "delete" : "add"](box.value);
      refresh();
    });
  }
}
document.getElementById("filter").hidden = false;
refresh();

/* Downloads of what is drawn. */
function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const button of all("[data-save]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const figure = button.closest("figure");
    const svg = figure.querySelector(".drawn > svg");
    if (!svg) return;
    const { width, height } = svg.getBoundingClientRect();
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    Object.entries({ width, height }).forEach(([name, value]) => copy.setAttribute(name, value));
    Object.assign(copy.style, { color: "#1b1b1f", fontFamily: "system-ui, sans-serif" });
    const blob = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
    const name = figure.id.replace("figure-", "");
    if (button.dataset.save === "svg") return save(blob, `${name}.svg`);
    const image = new Image();
    image.src = URL.createObjectURL(blob);
    await image.decode();
    const canvas = make("canvas", { width: 2 * width, height: 2 * height });
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((made) => save(made, `${name}.png`));
  });
}

/* A link leads into what is folded, too. */
function unfold() {
  let part = location.hash && document.getElementById(location.hash.slice(1));
  for (; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
}
addEventListener("hashchange", unfold);
unfold();
