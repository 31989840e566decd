"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const hidden = { row: new Set(), task: new Set() };
const data = JSON.parse(document.getElementById("data")?.textContent ?? "null");

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

/* Charts. */
const verdictLooks = { better: "filled", worse: "filled", equivalent: "square", undecided: "hollow" };
const shown = (place) => !hidden.row.has(String(place));
const isMethod = (place) => data.rows[place].role === "method";
const places = () => data.rows.map((_, place) => place).filter((place) => isMethod(place) && shown(place));
const two = (value, sign = false) =>
  value === null ? "unknown" : `${sign && value >= 0 ? "+" : ""}${value.toFixed(2)}`.replace("-", "\u2212");
const withError = (value, half, sign) => two(value, sign) + (half === null ? "" : ` \u00b1 ${half.toFixed(2)}`);
const shorten = (name, most) =>
  name.length <= most ? name : `${name.slice(0, Math.ceil(most / 3))}\u2026${name.slice(1 - Math.ceil((most * 2) / 3))}`;
const colour = (d) => data.rows[d.place].colour;
const symbol = (d) => data.rows[d.place].symbol;

function frame(width, names) {
  const most = width < 520 ? 14 : 32;
  const longest = Math.max(4, ...names.map((name) => Math.min(name.length, most)));
  return { most, marginLeft: 14 + 6.6 * longest };
}

function lines(rows, width, x) {
  const { most, marginLeft } = frame(width, rows.map((d) => data.rows[d.place].name));
  return {
    width,
    height: 76 + 26 * rows.length,
    marginLeft,
    marginRight: 16,
    marginTop: 26,
    marginBottom: 44,
    x: { grid: true, nice: true, ...x },
    y: {
      // Places are numbers, of which two alone would be taken for the ends of a line.
      type: "point",
      padding: 0.5,
      label: null,
      domain: rows.map((d) => d.place),
      tickFormat: (place) => shorten(data.rows[place].name, most),
      tickSize: 0,
    },
    symbol: { type: "identity" },
    style: { fontSize: "12px" },
  };
}

/* Heights at which names stand clear of each other; beyond a dozen they would not, and the pointer tells them. */
function apart(rows, { x, y, width, height, span }) {
  if (rows.length > 12) return [];
  const across = (width - 160) / (Math.max(...rows.map(x)) - Math.min(...rows.map(x)) || 1);
  const step = (14 * (span[1] - span[0] || 1)) / (height - 80);
  const placed = [];
  for (const d of [...rows].sort((a, b) => y(b) - y(a))) {
    let label = y(d);
    const near = placed.filter((other) => Math.abs(x(other) - x(d)) * across < 110);
    if (near.length) label = Math.min(label, Math.min(...near.map((other) => other.label)) - step);
    placed.push({ ...d, label });
  }
  return placed;
}

const draw = {
  scores(width, chosen) {
    const column = data.columns.find((item) => item.name === chosen.column);
    const of = (place) => ({ place, mean: column.means[place]?.[0] ?? null, half: column.means[place]?.[1] ?? null });
    const rows = places().map(of).filter((d) => d.mean !== null).sort((a, b) => b.mean - a.mean);
    if (!rows.length) return null;
    const ends = data.rows
      .map((row, place) => ({ ...of(place), role: row.role, name: row.role === "reference" ? "static" : row.role }))
      .filter((d) => d.role !== "method" && d.mean !== null);
    const seeds = rows.flatMap((d) => (column.seeds[d.place] ?? []).map(([seed, value]) => ({ ...d, seed, value })));
    const known = rows.filter((d) => d.half !== null);
    const low = (d) => d.mean - (d.half ?? 0);
    const high = (d) => d.mean + (d.half ?? 0);
    const means = [...ends, ...rows].map((d) => d.mean);
    const close = 0.2 * (Math.max(...means) - Math.min(...means));
    const anchor = (d) => {
      const near = ends.filter((other) => other !== d && Math.abs(other.mean - d.mean) < close);
      return !near.length ? "middle" : near.some((other) => other.mean < d.mean) ? "start" : "end";
    };
    const title = (d) => {
      const own = (column.seeds[d.place] ?? []).map(([seed, value]) => `seed ${seed}: ${two(value)}`);
      return [`${data.rows[d.place].name}: ${withError(d.mean, d.half)}`, ...own.slice(0, 8)].join("\n");
    };
    return {
      ...lines(rows, width, { label: `${column.name} (x100)` }),
      marks: [
        Plot.rectX(ends.filter((d) => d.half !== null), { x1: low, x2: high, fill: "#6b6b6b", fillOpacity: 0.12 }),
        Plot.ruleX(ends, { x: "mean", stroke: "#6b6b6b", strokeDasharray: (d) => (d.role === "ceiling" ? "6,3" : "2,3") }),
        ...ends.map((d) =>
          Plot.text([d], { x: "mean", text: "name", frameAnchor: "top", dy: -14, textAnchor: anchor(d), fill: "#55595f" }),
        ),
        Plot.link(known, { x1: low, x2: high, y1: "place", y2: "place", stroke: colour, strokeWidth: 2 }),
        Plot.dot(seeds, { x: "value", y: "place", r: 2, dy: 8, fill: colour, fillOpacity: 0.6 }),
        Plot.dot(rows, { x: "mean", y: "place", r: 5, fill: colour, symbol, stroke: "white", strokeWidth: 0.75 }),
        Plot.tip(rows, Plot.pointerY({ x: "mean", y: "place", title, maxRadius: 60 })),
      ],
    };
  },

  score_vs_cost(width, chosen) {
    const cost = data.costs.find((item) => item.label === chosen.cost);
    const column = data.columns.find((item) => item.name === chosen.column);
    const rows = places()
      .filter((place) => cost.values[place] && column.means[place])
      .map((place) => ({ place, mean: column.means[place][0], half: column.means[place][1], cost: cost.values[place] }));
    if (!rows.length) return null;
    const least = Math.min(...rows.map((d) => d.cost[0]));
    const most = Math.max(...rows.map((d) => d.cost[0]));
    const front = [];
    for (const d of [...rows].sort((a, b) => a.cost[0] - b.cost[0] || b.mean - a.mean)) {
      if (!front.length || d.mean > front.at(-1).mean) front.push(d);
    }
    const low = (d) => d.mean - (d.half ?? 0);
    const high = (d) => d.mean + (d.half ?? 0);
    const spent = (d) => d.cost[0];
    const logarithmic = most > 3 * least && least > 0;
    const height = 380;
    const named = apart(rows, {
      x: (d) => (logarithmic ? Math.log(spent(d)) : spent(d)),
      y: (d) => d.mean,
      width,
      height,
      span: [Math.min(...rows.map(low)), Math.max(...rows.map(high))],
    });
    const title = (d) =>
      `${data.rows[d.place].name}\n${withError(d.mean, d.half)}\n${cost.label}: ${d.cost[0].toLocaleString("en", { maximumSignificantDigits: 3 })}`;
    const name = (d) => shorten(data.rows[d.place].name, 22);
    return {
      width,
      height,
      marginLeft: 48,
      marginRight: width < 520 ? 70 : 110,
      marginTop: 30,
      marginBottom: 44,
      x: { type: logarithmic ? "log" : "linear", label: cost.label, grid: true, ticks: width < 520 ? 4 : 8, tickFormat: ",~r" },
      y: { label: `${column.name} (x100)`, grid: true, nice: true },
      symbol: { type: "identity" },
      style: { fontSize: "12px" },
      marks: [
        Plot.line(front, { x: spent, y: "mean", curve: "step-after", stroke: "#6b6b6b" }),
        Plot.link(rows, { x1: (d) => d.cost[1], x2: (d) => d.cost[2], y1: "mean", y2: "mean", stroke: colour }),
        Plot.link(rows, { x1: spent, x2: spent, y1: low, y2: high, stroke: colour }),
        Plot.dot(rows, { x: spent, y: "mean", r: 5, fill: colour, symbol, stroke: "white", strokeWidth: 0.75 }),
        Plot.text(named, { x: spent, y: "label", text: name, dx: 10, textAnchor: "start", fill: "currentColor", stroke: "white" }),
        Plot.tip(rows, Plot.pointer({ x: spent, y: "mean", title })),
      ],
    };
  },

  differences(width, chosen) {
    const against = Number(chosen.against);
    const rows = (data.pairs[chosen.column] ?? [])
      .filter(([one, other]) => one === against || other === against)
      .map(([one, other, mean, half, verdict]) =>
        other === against
          ? { place: one, mean, half, verdict }
          : { place: other, mean: -mean, half, verdict: { better: "worse", worse: "better" }[verdict] ?? verdict },
      )
      .filter((d) => shown(d.place))
      .sort((a, b) => b.mean - a.mean);
    if (!rows.length) return null;
    const known = rows.filter((d) => d.half !== null);
    const low = (d) => d.mean - d.half;
    const high = (d) => d.mean + d.half;
    const of = (look) => rows.filter((d) => verdictLooks[d.verdict] === look);
    const place = { x: "mean", y: "place", r: 5 };
    const title = (d) => `${data.rows[d.place].name} is ${d.verdict}\n${withError(d.mean, d.half, true)} points`;
    return {
      ...lines(rows, width, { label: `Difference to ${shorten(data.rows[against].name, 24)} (points)` }),
      marginRight: width < 520 ? 16 : 90,
      marks: [
        Plot.rectX([0], { x1: -data.margin, x2: data.margin, fill: "#6b6b6b", fillOpacity: 0.15 }),
        Plot.ruleX([0], { stroke: "#6b6b6b" }),
        Plot.link(known, { x1: low, x2: high, y1: "place", y2: "place", stroke: colour, strokeWidth: 2 }),
        Plot.dot(of("filled"), { ...place, fill: colour }),
        Plot.dot(of("square"), { ...place, fill: colour, symbol: "square" }),
        Plot.dot(of("hollow"), { ...place, fill: "white", stroke: colour, strokeWidth: 2 }),
        width < 520 ? null : Plot.text(rows, { x: (d) => d.mean + (d.half ?? 0), y: "place", text: "verdict", dx: 8, textAnchor: "start", fill: "#55595f", stroke: "white" }),
        Plot.tip(rows, Plot.pointerY({ x: "mean", y: "place", title, maxRadius: 60 })),
      ],
    };
  },

  response(width) {
    const points = places().flatMap((place) =>
      (data.response.lines[place] ?? []).map(([spent, mean, low, high]) => ({ place, spent, mean, low, high })),
    );
    if (!points.length) return null;
    const title = (d) => `${data.rows[d.place].name}\n${two(d.mean)} after ${d.spent.toLocaleString("en")} ${data.response.currency}`;
    const at = { x: "spent", z: "place" };
    return {
      width,
      height: 380,
      marginLeft: 48,
      marginRight: 24,
      marginTop: 30,
      marginBottom: 44,
      x: { type: "log", label: data.response.currency, grid: true, ticks: width < 520 ? 4 : 8, tickFormat: ",~s" },
      y: { label: "Dev score (x100)", grid: true, nice: true },
      symbol: { type: "identity" },
      style: { fontSize: "12px" },
      marks: [
        Plot.areaY(points, { ...at, y1: "low", y2: "high", fill: colour, fillOpacity: 0.1 }),
        Plot.line(points, { ...at, y: "mean", stroke: colour, strokeWidth: 1.75 }),
        Plot.dot(points, { ...at, y: "mean", fill: colour, symbol, r: 3.5 }),
        Plot.tip(points, Plot.pointer({ x: "spent", y: "mean", title })),
      ],
    };
  },
};

const choices = {
  scores: () => ({ column: ["Show", data.columns.map((item) => item.name)] }),
  score_vs_cost: () => ({ cost: ["Cost", data.costs.map((item) => item.label)], column: ["Score", data.columns.map((item) => item.name)] }),
  differences: () => ({
    column: ["Show", Object.keys(data.pairs)],
    against: ["Against", data.rows.map((row, place) => [row.name, place]).filter(([, place]) => data.rows[place].role !== "ceiling")],
  }),
  response: () => ({}),
};
const overall = "Mean (Task)";

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

/* A link leads into what is folded, too; and paper shows all of it. */
function unfold() {
  let part = location.hash && document.getElementById(location.hash.slice(1));
  for (; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
}
addEventListener("hashchange", unfold);
unfold();
