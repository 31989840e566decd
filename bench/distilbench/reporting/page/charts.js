"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const hidden = { row: new Set(), task: new Set() };
const data = JSON.parse(document.getElementById("data")?.textContent ?? "null");

/* Charts: what each shows of `data`, for Observable Plot. Places are those of the rows of the study. */
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
    const front = [];
    for (const d of [...rows].sort((a, b) => a.cost[0] - b.cost[0] || b.mean - a.mean)) {
      if (!front.length || d.mean > front.at(-1).mean) front.push(d);
    }
    const low = (d) => d.mean - (d.half ?? 0);
    const high = (d) => d.mean + (d.half ?? 0);
    const spent = (d) => d.cost[0];
    const logarithmic = least > 0;
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
