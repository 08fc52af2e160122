// The live page of both programs: asks /api/v1/streams each second and draws what it says (docs/api.md).
//
// Everything from the API is set as text or as a number, never as HTML. The page keeps two minutes for its sparklines;
// rates are differences of totals, by the program's own clock. DOM is built when the set of streams changes, and
// updated in place otherwise, so that a selection or an open list stays what it is.

const POLL_MS = 1000;
const ANSWER_MS = 2000;
const STALE_MS = 2000;
const HISTORY_SECONDS = 120;
const RATE_SECONDS = 5;
const GAP_SECONDS = 3;

const history = new Map(); // stream → rows of the last two minutes, oldest first, each with `at` and `rate`
let answer = null;
let heardAt = performance.now();
let heardAtClock = new Date();
let failure = "";
let drawn = { streams: null, update: () => {} };

// -- words ------------------------------------------------------------------------------------------------------

const NONE = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);
const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3, useGrouping: true });
const count = (value) => value.toLocaleString("en");
const plural = (value, one) => `${count(value)} ${one}${value === 1 ? "" : one.endsWith("ch") ? "es" : "s"}`;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const clockTime = (date) => date.toLocaleTimeString("en-GB");

function milliseconds(seconds) {
  if (!known(seconds)) return NONE;
  const three = (value) => value.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
  return seconds < 1 ? `${three(seconds * 1e3)} ms` : `${three(seconds)} s`;
}

function bytes(value) {
  if (!known(value)) return NONE;
  const step = value >= 1e9 ? 3 : value >= 1e6 ? 2 : value >= 1e3 ? 1 : 0;
  return `${short(value / 1000 ** step)} ${["B", "kB", "MB", "GB"][step]}`;
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

const byName = (counts) => Object.entries(counts).filter(([, value]) => value).map(([name, value]) => `${name} ${count(value)}`);
const summed = (summary, one) =>
  summary.count
    ? {
        text: milliseconds(summary.median),
        unit: `of ${plural(summary.count, one)}`,
        note: `p95 ${milliseconds(summary.p95)} · p99 ${milliseconds(summary.p99)}`,
      }
    : { text: NONE, note: "none yet" };

// -- what is shown of a stream ----------------------------------------------------------------------------------

const handshakeBytes = (row) => (row.link ? row.link.handshake_bytes.in + row.link.handshake_bytes.out : null);
const rate = (row) => ({
  text: known(row.rate.records) ? short(row.rate.records) : NONE,
  unit: "records/s",
  note: known(row.rate.bytes) ? `${bytes(row.rate.bytes)}/s compressed` : "",
});

const medianRatio = (label, summary, many) => ({
  label, value: (row) => row[summary].median, format: milliseconds,
  of: (rows) => `medians of ${rows.map((row) => count(row[summary].count)).join(" and ")} ${many}`,
});
const throughputRatio = (what) => ({
  label: "Throughput", value: (row) => row.rate.records, of: () => `records ${what}, over ${RATE_SECONDS} s`,
  format: (value) => (known(value) ? `${short(value)}/s` : NONE),
});

/** What differs between the two ends of a comparison: only that can be what a ratio comes from. */
function differences(original, twin) {
  if (!original.link || !twin.link) return "";
  const found = ["version", "group", "cipher"].filter((fact) => original.link[fact] !== twin.link[fact]);
  if (!found.length) return "The links do not differ in TLS version, group or cipher.";
  const changes = found.map((fact) => `${original.link[fact]} → ${twin.link[fact]}`);
  return `The links differ in TLS ${found.join(" and ")}${found.length === 1 ? " alone" : ""}: ${changes.join(", ")}`;
}

function faults(row) {
  const { dropped, dead_lettered, invalid } = row.records;
  const events = Object.entries(row.faults).filter(([, counts]) => sum(Object.values(counts)));
  const lost = { "records dropped": dropped, "dead-lettered": dead_lettered, invalid };
  const found = [...events.map(([kind, counts]) => `${kind.replaceAll("_", " ")}: ${byName(counts).join(", ")}`), ...byName(lost)];
  const total = sum([...events.flatMap(([, counts]) => Object.values(counts)), ...Object.values(lost)]);
  return total ? { text: `▲ ${count(total)}`, note: found.join("; ") } : { text: "✓ none" };
}

function forwarderState(row) {
  if (row.state === "disconnected") return `✕ disconnected for ${duration(row.unlinked_seconds)}`;
  if (row.state === "unanswered") return `▲ no answer for ${duration(row.unanswered_seconds)}`;
  return row.state === "connected" ? "● connected" : "◌ connecting";
}

const FORWARDER = {
  explanation:
    "Medians and percentiles are those of the last 10,000 values of each stream; sparklines show the last two minutes, from " +
    "zero, on one scale for streams beside each other. A ratio here has no interval: for a judgement use logbench compare.",
  empty: "No stream is configured.",
  bytes: (row) => row.acknowledged_bytes,
  records: (row) => row.records.acknowledged,
  mode: (row) => row.mode,
  state: (row) => [row.state, forwarderState(row)],
  group: (row) => (row.link ? `${row.link.group} · ${row.link.version}` : "no link"),
  details: (row) =>
    row.link ? [row.link.cipher, `to ${row.link.receiver} for ${duration(row.link.age_seconds)}`] : [`mode ${row.mode}`, "tries again by itself"],
  differences,
  ratios: [
    medianRatio("Batch duration", "batch_duration_seconds", "batches"),
    medianRatio("TLS handshake", "handshake_seconds", "handshakes"),
    { label: "Handshake size", of: () => "bytes of the links in use", value: handshakeBytes, format: bytes },
    throughputRatio("acknowledged"),
  ],
  measures: [
    {
      label: "Batch duration", hint: "sealed until acknowledged; median",
      show: (row) => summed(row.batch_duration_seconds, "batch"),
      series: (row) => row.batch_duration_seconds.median,
    },
    {
      label: "TLS handshake", hint: "without the TCP connect; median",
      show: (row) => summed(row.handshake_seconds, "handshake"),
      series: (row) => row.handshake_seconds.median,
    },
    {
      label: "Handshake size", hint: "of the link in use",
      show: (row) => ({
        text: bytes(handshakeBytes(row)),
        note: row.link ? `${bytes(row.link.handshake_bytes.out)} out · ${bytes(row.link.handshake_bytes.in)} in` : "no link",
      }),
    },
    { label: "Throughput", hint: `acknowledged, over ${RATE_SECONDS} s`, show: rate, series: (row) => row.rate.records },
    {
      label: "Unacknowledged", hint: "batches on the wire",
      show: (row) => ({
        text: count(row.unacknowledged_batches),
        note: row.unanswered_seconds ? `an answer is due for ${duration(row.unanswered_seconds)}` : "no answer is due",
      }),
    },
    {
      label: "Spool", hint: "waits to be acknowledged",
      show: (row) => ({
        text: bytes(row.spool.bytes),
        note: row.spool.batches ? `${plural(row.spool.batches, "batch")} · oldest ${duration(row.spool.oldest_seconds)}` : "empty",
      }),
      series: (row) => row.spool.bytes,
    },
    {
      label: "Source lag", hint: "written, not spooled yet",
      show: (row) => ({ text: bytes(row.source_lag_bytes), note: row.twin_of ? `of the source of ${row.twin_of}` : "" }),
    },
    { label: "Faults", hint: "links since the start, records since the spool was made", show: faults, wrong: (row) => faults(row).text !== "✓ none" },
  ],
};

const RECEIVER = {
  explanation:
    "Medians and percentiles are those of the last 10,000 batches of each stream; sparklines show the last two minutes, from " +
    "zero, on one scale for streams beside each other. Totals count from the start of this receiver process.",
  empty: "No forwarder has opened a link yet.",
  bytes: (row) => row.bytes.stored ?? 0,
  records: (row) => row.records.stored ?? 0,
  mode: (row) => row.modes.join(", "),
  state: (row) => (row.links ? ["connected", `● ${plural(row.links, "link")}`] : ["disconnected", "✕ no link"]),
  group: (row) => Object.entries(row.links_by_group).map(([group, links]) => `${count(links)} × ${group}`).join(" · ") || "no link",
  details: () => [],
  differences: () => "",
  ratios: [
    medianRatio("Sink time", "sink_seconds", "batches"),
    throughputRatio("stored"),
  ],
  measures: [
    {
      label: "Sink time", hint: "of one batch; median",
      show: (row) => summed(row.sink_seconds, "batch"),
      series: (row) => row.sink_seconds.median,
    },
    {
      label: "TLS handshake", hint: "first byte read until complete; median",
      show: (row) => summed(row.handshake_seconds, "handshake"),
      series: (row) => row.handshake_seconds.median,
    },
    { label: "Throughput", hint: `stored, over ${RATE_SECONDS} s`, show: rate, series: (row) => row.rate.records },
    {
      label: "Batches", hint: "by outcome",
      show: (row) => ({ text: count(sum(Object.values(row.batches))), note: byName(row.batches).join(" · ") || "none yet" }),
      wrong: (row) => Boolean(row.batches.refused || row.batches.uncertain),
    },
    {
      label: "Records", hint: "by outcome",
      show: (row) => ({ text: count(sum(Object.values(row.records))), note: byName(row.records).join(" · ") || "none yet" }),
    },
  ],
  links: (row) => row.newest_links,
};

// -- drawing ----------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Originals with their twins behind them, in the order of the API; a twin without its original stands for itself. */
function groups(rows) {
  const names = new Set(rows.map((row) => row.stream));
  const heads = rows.filter((row) => !row.twin_of || !names.has(row.twin_of));
  return heads.map((head) => [head, ...rows.filter((row) => row.twin_of === head.stream && row !== head)]);
}

/** A section for a group of streams; `update` takes its rows, in the same order. */
function section(program, group) {
  const names = group.map((row) => row.stream);
  const parts = [heading(program, group), ...group.slice(1).map((_, i) => tiles(program, names, i + 1)), table(program, names)];
  if (program.links) parts.push(...names.map((name, i) => links(program, name, i)));
  const id = `streams-${names[0]}`;
  parts[0].title.id = id;
  const node = make("section", { "aria-labelledby": id, class: group.length > 1 ? "pair" : "" }, ...parts.map((part) => part.node));
  return { node, update: (rows) => parts.forEach((part) => part.update(rows)) };
}

function heading(program, group) {
  const [head, ...twins] = group.map((row) => row.stream);
  const title = make("h2", { class: twins.length ? "" : "visually-hidden" }, twins.length ? `${twins.join(", ")} beside ${head}` : head);
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
    "table", { class: "measures", role: "table" },
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
  const [group, ...details] = [make("p", { class: "group" }), make("p", { class: "note" }), make("p", { class: "note" })];
  const node = make(
    "th", { scope: "col", role: "columnheader", class: `stream of-${place % 4}`, "data-stream": name },
    make("p", { class: "name" }, name), mode, state, group, ...details,
  );
  const update = (row) => {
    const [kind, text] = program.state(row);
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
    const series = measure.series ? names.map((name) => history.get(name).map((row) => [row.at, measure.series(row)])) : [];
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
    spark?.update(points, most);
  };
  return { node, update };
}

const SPARK = { width: 150, height: 32 };

function sparkline() {
  const [area, path] = [make("path", { class: "area" }), make("path", { class: "line" })];
  const base = make("line", { class: "base", x1: 0, x2: SPARK.width, y1: SPARK.height, y2: SPARK.height });
  const node = make("svg", { class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, base, area, path);
  const update = (points, most) => {
    const runs = unbroken(points).map((run) => run.map(([at, value]) => place(at, value, most)));
    path.setAttribute("d", runs.map((run) => `M${run.map(([x, y]) => `${x},${y}`).join("L")}`).join(""));
    area.setAttribute("d", runs.map((run) => `M${run[0][0]},${SPARK.height}L${run.map(([x, y]) => `${x},${y}`).join("L")}L${run.at(-1)[0]},${SPARK.height}Z`).join(""));
  };
  return { node, update };
}

function place(at, value, most) {
  const x = SPARK.width * (1 - (answer.now - at) / HISTORY_SECONDS);
  const y = SPARK.height - 2 - (most > 0 ? ((SPARK.height - 4) * value) / most : 0);
  return [x.toFixed(1), y.toFixed(1)];
}

/** Runs of points with values, cut where the page or the program was away. */
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

const LINK_COLUMNS = { identity: "identity", peer: "from", group: "group", version: "version", topic: "topic" };

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

function draw() {
  const program = answer.program === "logreceiver" ? RECEIVER : FORWARDER;
  const found = groups(answer.streams);
  const streams = JSON.stringify(found.map((group) => group.map((row) => row.stream)));
  if (streams !== drawn.streams) {
    const sections = found.map((group) => section(program, group));
    const nodes = sections.length ? sections.map((each) => each.node) : [make("p", { class: "empty" }, program.empty)];
    document.getElementById("streams").replaceChildren(...nodes);
    drawn = { streams, update: (rows) => sections.forEach((each, i) => each.update(rows[i])) };
    setText(document.getElementById("explanation"), program.explanation);
  }
  drawn.update(found);
  setText(document.getElementById("program"), answer.program);
  setText(document.getElementById("about"), `version ${answer.version} on ${location.host}, up for ${duration(answer.now - answer.started)}`);
}

/** What is wrong with the whole: the program does not answer, or says that something is amiss. */
function judge() {
  const silent = performance.now() - heardAt;
  const stale = silent > STALE_MS;
  const name = answer?.program ?? "the program";
  const since = answer ? ` since ${clockTime(heardAtClock)}` : "";
  const old = answer ? ". What is shown is old." : ".";
  const problems = [
    ...(stale ? [`Stale: no answer from ${name}${since}${failure && ` (${failure})`}${old}`] : []),
    ...Object.entries(answer?.trouble ?? {}).map(([part, reason]) => `${part}: ${reason}`),
  ];
  const alerts = document.getElementById("alerts");
  if (alerts.dataset.shown !== JSON.stringify(problems)) {
    alerts.dataset.shown = JSON.stringify(problems);
    alerts.replaceChildren(...problems.map((problem) => make("p", {}, problem)));
  }
  const [kind, sign, text] = stale ? ["stale", "✕", `stale for ${duration(silent / 1000)}`] : answer ? ["live", "●", "live"] : ["waiting", "◌", "waiting for the first answer"];
  const pulse = document.getElementById("pulse");
  pulse.dataset.state = kind;
  setText(pulse.firstElementChild, sign);
  setText(document.getElementById("pulse-text"), text);
  document.body.classList.toggle("stale", stale);
  const wrong = problems.length || answer?.streams.some((row) => ["disconnected", "unanswered"].includes(row.state));
  document.title = `${wrong ? "▲ " : ""}${answer?.program ?? "streams"}`;
}

// -- asking -----------------------------------------------------------------------------------------------------

function take(news) {
  if (answer && (answer.started !== news.started || answer.program !== news.program)) history.clear();
  answer = news;
  const program = answer.program === "logreceiver" ? RECEIVER : FORWARDER;
  const names = new Set(answer.streams.map((row) => row.stream));
  for (const name of history.keys()) if (!names.has(name)) history.delete(name);
  for (const row of answer.streams) {
    const rows = history.get(row.stream) ?? [];
    row.at = answer.now;
    row.total = { records: program.records(row), bytes: program.bytes(row) };
    row.rate = rateSince(rows.find((old) => old.at >= row.at - RATE_SECONDS - 0.5), row);
    history.set(row.stream, [...rows.filter((old) => old.at > row.at - HISTORY_SECONDS), row]);
  }
}

function rateSince(old, row) {
  if (!old || row.at <= old.at) return { records: null, bytes: null };
  const per = (total) => {
    const more = row.total[total] - old.total[total];
    return more < 0 ? null : more / (row.at - old.at);
  };
  return { records: per("records"), bytes: per("bytes") };
}

async function ask() {
  const began = performance.now();
  if (!document.hidden) {
    try {
      const response = await fetch("api/v1/streams", { signal: AbortSignal.timeout(ANSWER_MS) });
      if (!response.ok) throw new Error(`it answered ${response.status}`);
      take(await response.json());
      [heardAt, heardAtClock, failure] = [performance.now(), new Date(), ""];
      draw();
    } catch (error) {
      failure = error.name === "TimeoutError" ? `none within ${ANSWER_MS / 1000} s` : error.message;
    }
  }
  setTimeout(ask, Math.max(POLL_MS - (performance.now() - began), 0));
}

setInterval(judge, 200);
ask();
