// Draws streams side by side. All data is inserted as text, numbers or coordinates, never as HTML.

import { NONE, count, duration, known, stateOf } from "./measures.js";

export const HISTORY_SECONDS = 120;
const GAP_SECONDS = 3;

export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Originals followed by their twins, in the order of the API; a twin without its original is shown on its own. */
export function groups(rows) {
  const names = new Set(rows.map((row) => row.stream));
  const heads = rows.filter((row) => !row.twin_of || !names.has(row.twin_of));
  return heads.map((head) => [head, ...rows.filter((row) => row.twin_of === head.stream && row !== head)]);
}

/** A section for a group of streams, with `further` parts at its end; `update` takes its rows, in the same order. */
export function section(program, group, further) {
  const names = group.map((row) => row.stream);
  const parts = [heading(program, group), ...group.slice(1).map((_, i) => tiles(program, names, i + 1)), table(program, names)];
  if (program.links) parts.push(...names.map((name, i) => links(program, name, i)));
  parts.push(...further);
  const id = `streams-${names[0]}`;
  parts[0].title.id = id;
  const node = make("section", { "aria-labelledby": id, class: group.length > 1 ? "pair" : "" }, ...parts.map((part) => part.node));
  return { node, update: (rows) => parts.forEach((part) => part.update(rows)) };
}

function heading(program, group) {
  const [head, ...twins] = group.map((row) => row.stream);
  const title = make("h2", { class: twins.length ? "" : "visually-hidden" }, twins.length ? `${twins.join(", ")} compared with ${head}` : head);
  const differing = twins.map(() => make("p", { class: "hint" }));
  const update = (rows) =>
    differing.forEach((node, i) => setText(node, program.differences(rows[0], rows[i + 1])));
  return { node: make("div", {}, title, ...differing), title, update };
}

function tiles(program, names, twin) {
  const parts = program.ratios.map((measure) => tile(measure, names, twin));
  return { node: make("div", { class: "tiles" }, ...parts.map((part) => part.node)), update: (rows) => parts.forEach((part) => part.update(rows)) };
}

function tile(measure, names, twin) {
  const [ratio, of] = [make("p", { class: "ratio" }), make("p", { class: "hint" })];
  const bars = [0, twin].map((place) => bar(names[place], place));
  const node = make("div", { class: "tile" }, make("h3", {}, measure.label), ratio, of, ...bars.map((each) => each.node));
  const update = (rows) => {
    const [original, other] = [rows[0], rows[twin]].map(measure.value);
    const text = known(original) && known(other) && original > 0 ? (other / original).toFixed(2) : NONE;
    if (ratio.dataset.text !== text) {
      ratio.dataset.text = text;
      ratio.replaceChildren(text, ...(text === NONE ? [] : [make("small", {}, "×")]));
    }
    setText(of, measure.of([rows[0], rows[twin]]));
    const most = Math.max(original ?? 0, other ?? 0);
    bars.forEach((each, i) => each.update([original, other][i], most, measure.format));
  };
  return { node, update };
}

function bar(name, place) {
  const value = make("span", { class: "value" });
  const fill = make("span", { class: "fill" });
  const track = make("span", { class: "track", "aria-hidden": "true" }, fill);
  const node = make("div", { class: `bar of-${place % 4}` }, make("span", { class: "name" }, name), value, track);
  const update = (number, most, format) => {
    setText(value, format(number));
    fill.style.width = known(number) && most > 0 ? `${(100 * number) / most}%` : "0";
  };
  return { node, update };
}

function table(program, names) {
  const heads = names.map((name, place) => streamHead(program, name, place));
  const lines = program.measures.map((measure) => line(measure, names));
  const node = make(
    "table", { class: `measures ${["", "single", "double"][names.length] ?? "narrow"}`, role: "table" },
    make("caption", {}, names.join(", ")),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, make("td", { class: "label", role: "cell" }), ...heads.map((head) => head.node))),
    make("tbody", { role: "rowgroup" }, ...lines.map((each) => each.node)),
  );
  node.style.setProperty("--columns", names.length);
  return {
    node,
    update: (rows) => {
      heads.forEach((head, i) => head.update(rows[i]));
      lines.forEach((each) => each.update(rows));
    },
  };
}

function streamHead(program, name, place) {
  const [mode, state] = [make("span", { class: "mode" }), make("span", { class: "state" })];
  const [group, ...details] = ["group", "note", "note", "note"].map((kind) => make("p", { class: kind }));
  const node = make(
    "th", { scope: "col", role: "columnheader", class: `stream of-${place % 4}`, "data-stream": name },
    make("p", { class: "name" }, name), mode, state, group, ...details,
  );
  const update = (row) => {
    const [kind, text] = stateOf(program, row, row.trouble);
    state.dataset.state = kind;
    setText(state, text);
    setText(mode, program.mode(row));
    setText(group, program.group(row));
    details.forEach((node, i) => setText(node, program.details(row)[i] ?? ""));
  };
  return { node, update };
}

function line(measure, names) {
  const cells = names.map((name, place) => cell(measure, name, place));
  const label = make("th", { scope: "row", role: "rowheader", class: "label" }, make("strong", {}, measure.label), make("span", { class: "hint" }, measure.hint));
  const update = (rows) => {
    const series = measure.series ? rows.map((row) => row.past.map((old) => [old.at, measure.series(old)])) : [];
    const most = Math.max(0, ...series.flat().map(([, value]) => value ?? 0));
    cells.forEach((each, i) => each.update(rows[i], series[i], most));
  };
  return { node: make("tr", { role: "row" }, label, ...cells.map((each) => each.node)), update };
}

function cell(measure, name, place) {
  const [text, unit] = [make("span"), make("small")];
  const main = make("p", { class: "main" }, text, " ", unit);
  const note = make("p", { class: "note" });
  const spark = measure.series ? sparkline() : null;
  const inside = make("div", { class: spark ? "cell" : "cell plain" }, main, ...(spark ? [spark.node] : []), note);
  const node = make("td", { role: "cell", class: `of-${place % 4}`, "data-stream": name, "data-measure": measure.label }, inside);
  const update = (row, points, most) => {
    const shown = measure.show(row);
    setText(text, shown.text);
    setText(unit, shown.unit ?? "");
    setText(note, shown.note ?? "");
    main.classList.toggle("wrong", Boolean(measure.wrong?.(row)));
    spark?.update(points, most, row.at);
  };
  return { node, update };
}

const SPARK = { width: 150, height: 32 };

function sparkline() {
  const [area, path] = [make("path", { class: "area" }), make("path", { class: "line" })];
  const base = make("line", { class: "base", x1: 0, x2: SPARK.width, y1: SPARK.height, y2: SPARK.height });
  const node = make("svg", { class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, base, area, path);
  const update = (points, most, now) => {
    const runs = unbroken(points).map((run) => run.map(([at, value]) => place(at, value, most, now)));
    path.setAttribute("d", runs.map((run) => `M${run.map(([x, y]) => `${x},${y}`).join("L")}`).join(""));
    area.setAttribute("d", runs.map((run) => `M${run[0][0]},${SPARK.height}L${run.map(([x, y]) => `${x},${y}`).join("L")}L${run.at(-1)[0]},${SPARK.height}Z`).join(""));
  };
  return { node, update };
}

function place(at, value, most, now) {
  const x = SPARK.width * (1 - (now - at) / HISTORY_SECONDS);
  const y = SPARK.height - 2 - (most > 0 ? ((SPARK.height - 4) * value) / most : 0);
  return [x.toFixed(1), y.toFixed(1)];
}

/** Unbroken runs of points, split where the page or the program was away. */
function unbroken(points) {
  const runs = [];
  let last = -Infinity;
  for (const [at, value] of points) {
    if (!known(value)) continue;
    if (at - last > GAP_SECONDS) runs.push([]);
    runs.at(-1).push([at, value]);
    last = at;
  }
  return runs.filter((run) => run.length > 1);
}

const LINK_COLUMNS = { identity: "identity", peer: "from", mode: "mode", group: "group", version: "version", authentication: "authentication", topic: "topic" };

function links(program, name, place) {
  const body = make("tbody");
  const summary = make("summary");
  const head = [...Object.values(LINK_COLUMNS), "age"].map((title) => make("th", { scope: "col" }, title));
  const node = make("details", {}, summary, make("table", { class: "links" }, make("thead", {}, make("tr", {}, ...head)), body));
  const update = (rows) => {
    const shown = program.links(rows[place]);
    setText(summary, `newest links of ${name}: ${shown.length} of ${count(rows[place].links)}`);
    const cells = (link) => [...Object.keys(LINK_COLUMNS).map((key) => link[key]), duration(link.age_seconds)];
    body.replaceChildren(...shown.map((link) => make("tr", {}, ...cells(link).map((text) => make("td", {}, text)))));
  };
  return { node, update };
}
