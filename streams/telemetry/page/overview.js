// What the page begins with: whether records arrive, in one line, and a table with a row for each stream.

import { make, setText } from "./draw.js";
import { NONE, stateOf, verdictOf } from "./measures.js";

const MOST_OPEN = 3; // sections: beyond that each opens by its row

/** The first line: [kind, sign, text] of a state. */
export function judged(node, answer, stale) {
  const [kind, sign, text] = stale ? ["stale", "✕", "Not known: there is no answer. What is shown below is old."] : verdictOf(answer);
  node.dataset.state = kind;
  setText(node.firstElementChild, sign);
  setText(node.lastElementChild, text);
}

/** The table; `sections` has, by stream, the section with all about it. */
export function overview(program, rows, sections) {
  const named = [{ label: "Stream" }, { label: "State" }, ...program.overview];
  const head = named.map(({ label, number }) => make("th", { scope: "col", class: number ? "number" : "" }, label));
  const lines = rows.map((row) => line(program, row.stream, sections.get(row.stream), rows.length > MOST_OPEN));
  const node = make("table", { class: "overview" }, make("caption", { class: "visually-hidden" }, "Streams"), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines.map((each) => each.node)));
  const update = (news, answer) => {
    lines.forEach((each, i) => each.update(news[i], answer));
    if (rows.length > MOST_OPEN) order(node.tBodies[0], lines);
  };
  return { node, update };
}

const URGENCY = ["disconnected", "unanswered", "connecting", "connected"];

/** Streams with faults first, the others in the order of the API. */
function order(body, lines) {
  const kind = ({ state }) => URGENCY.indexOf(state.dataset.state);
  const nodes = [...lines].sort((one, other) => kind(one) - kind(other)).map((each) => each.node);
  if (nodes.every((node, i) => node === body.rows[i])) return;
  const held = document.activeElement;
  body.append(...nodes);
  if (body.contains(held)) held.focus({ preventScroll: true }); // a row that is moved loses it
}

function line(program, stream, section, folded) {
  const state = make("span", { class: "state" });
  const cells = program.overview.map((column) => make("td", { "data-label": column.label, class: column.number ? "number" : "" }));
  const name = make("button", { type: "button", "aria-expanded": String(!folded) }, stream);
  section.hidden = folded;
  name.addEventListener("click", () => {
    section.hidden = folded && !section.hidden;
    name.setAttribute("aria-expanded", String(!section.hidden));
    if (!section.hidden) section.scrollIntoView({ block: "start" });
  });
  const node = make("tr", { "data-row": stream }, make("th", { scope: "row" }, name), make("td", { class: "how" }, state), ...cells);
  const update = (row, answer) => {
    const [kind, text] = stateOf(program, row, answer.trouble);
    state.dataset.state = kind;
    setText(state, text);
    program.overview.forEach((column, i) => {
      setText(cells[i], column.show(row, answer));
      cells[i].classList.toggle("nothing", cells[i].textContent === NONE);
    });
  };
  return { node, state, update };
}

