// What the page shows of one thing once somebody opens it: the certificates, and the files of a stream.

import { make, setText } from "./draw.js";
import { bytes, count, duration } from "./measures.js";

const ASK_SECONDS = 5;
const MOST_CERTIFICATES = 20;
const SOON_SECONDS = 14 * 86400;

function opened(summary, titles) {
  const body = make("tbody");
  const head = titles.map((title) => make("th", { scope: "col" }, title));
  const note = make("p", { class: "note" });
  const table = make("table", { class: "links" }, make("thead", {}, make("tr", {}, ...head)), body);
  const fill = (rows) => body.replaceChildren(...rows.map(([kind, cells]) => make("tr", { "data-level": kind }, ...cells.map((text) => make("td", {}, text)))));
  return { node: make("details", {}, summary, table, note), fill, note };
}

// -- files --------------------------------------------------------------------------------------------------------

/** The files that a stream reads; the program is asked for them only while they are open. */
export function files(stream) {
  const summary = make("summary", {}, `files of ${stream}`);
  const list = opened(summary, ["path", "size", "offset", "unread"]);
  list.node.classList.add("files");
  let [asks, next] = [false, 0];
  const show = ({ type, files: found, more_files: more }) => {
    setText(summary, type === "file" ? `files of ${stream}: ${count(found.length + more)}` : `files of ${stream}: none, its source is of type ${type}`);
    list.fill(found.map((file) => ["", [file.path, bytes(file.size_bytes), count(file.offset), bytes(file.unread_bytes)]]));
    setText(list.note, more ? `and ${count(more)} more, with no more unread than these` : "");
  };
  const ask = async () => {
    if (!list.node.open || asks || performance.now() < next) return;
    [asks, next] = [true, performance.now() + ASK_SECONDS * 1000];
    try {
      const response = await fetch(`api/v1/streams/${encodeURIComponent(stream)}/source`, { signal: AbortSignal.timeout(2000) });
      if (!response.ok) throw new Error(`it answered with status ${response.status}`);
      show(await response.json());
    } catch (error) {
      setText(list.note, `not known now: ${error.message}`);
    }
    asks = false;
  };
  list.node.addEventListener("toggle", ask);
  return { node: list.node, update: ask };
}

// -- certificates -------------------------------------------------------------------------------------------------

/** Those of the program and of its peers, the first to expire first: [what, whose, expires]. */
function certificatesOf({ certificates, streams }) {
  const own = certificates.map((each) => [each.section, each.owner === "own" ? "its own" : "delegated credential", each.expires]);
  const links = streams.flatMap((row) => row.newest_links ?? (row.link ? [row.link] : []));
  const peers = new Map(); // a peer may have many links: the first to expire counts
  for (const { identity, receiver, certificate_expires: expires } of links) {
    const name = identity ?? receiver;
    if (expires && !(peers.get(name) <= expires)) peers.set(name, expires);
  }
  return [...own, ...[...peers].map(([name, expires]) => [name, "the other side's", expires])].sort((one, other) => one[2] - other[2]);
}

function left(seconds) {
  if (seconds <= 0) return ["expired", `✕ expired ${duration(-seconds)} ago`];
  return seconds < SOON_SECONDS ? ["soon", `▲ ${duration(seconds)} left`] : ["", `${duration(seconds)} left`];
}

export function certificates() {
  const summary = make("summary");
  const list = opened(summary, ["certificate", "whose", "validity"]);
  [list.node.id, list.node.hidden] = ["certificates", true];
  const update = (answer) => {
    const found = certificatesOf(answer);
    list.node.hidden = !found.length;
    if (!found.length) return;
    const [[first, whose, expires]] = found;
    const [level, text] = left(expires - answer.now);
    setText(summary, `certificates: ${count(found.length)}; the first to expire: ${first} (${whose}), ${text}`);
    summary.dataset.level = level;
    list.fill(found.slice(0, MOST_CERTIFICATES).map(([name, side, end]) => {
      const [kind, words] = left(end - answer.now);
      return [kind, [name, side, `${words}, until ${new Date(end * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`]];
    }));
    setText(list.note, found.length > MOST_CERTIFICATES ? `and ${count(found.length - MOST_CERTIFICATES)} more that expire later` : "");
  };
  return { node: list.node, update };
}
