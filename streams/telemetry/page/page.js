// The live page of both programs: fetches /api/v1/streams every second, keeps two minutes for the sparklines, and shows when
// the program does not answer. Rates are differences of totals, by the program's own clock. The page is rebuilt when the set
// of streams changes and updated in place otherwise, so that a selection or an open list survives.

import { HISTORY_SECONDS, groups, make, section, setText } from "./draw.js";
import { certificates, files } from "./onclick.js";
import { RATE_SECONDS, configOf, duration, programOf } from "./measures.js";
import { judged, overview } from "./overview.js";

const POLL_MS = 1000;
const ANSWER_MS = 2000;
const STALE_MS = 2000;

const history = new Map(); // stream → its rows of the last two minutes, oldest first
let answer = null;
let heardAt = performance.now();
let heardAtClock = new Date();
let failure = "";
const expiry = certificates();
document.getElementById("overview").after(expiry.node);
let drawn = { streams: null, update: () => {} };

function draw() {
  const program = programOf(answer);
  const found = groups(answer.streams);
  const streams = answer.program + JSON.stringify(found.map((group) => group.map((row) => row.stream)));
  if (streams !== drawn.streams) {
    const sections = found.map((group) => section(program, group, program.files ? [files(group[0].stream)] : []));
    const nodes = sections.length ? sections.map((each) => each.node) : [make("p", { class: "empty" }, program.empty)];
    const byStream = new Map(found.flatMap((group, i) => group.map((row) => [row.stream, nodes[i]])));
    const table = sections.length ? overview(program, found.flat(), byStream) : { node: "", update: () => {} };
    document.getElementById("overview").replaceChildren(table.node);
    document.getElementById("streams").replaceChildren(...nodes);
    const update = (rows) => {
      table.update(rows.flat(), answer);
      sections.forEach((each, i) => each.node.hidden || each.update(rows[i]));
    };
    drawn = { streams, update };
    setText(document.getElementById("explanation"), program.explanation);
  }
  drawn.update(found);
  expiry.update(answer);
  setText(document.getElementById("program"), answer.program);
  setText(document.getElementById("sink"), program.sink(answer));
  const config = document.getElementById("config");
  setText(config, configOf(answer));
  config.classList.toggle("wrong", Boolean(answer.trouble.config));
  setText(document.getElementById("about"), `version ${answer.version} on ${answer.host}, up for ${duration(answer.now - answer.started)}`);
}

/** Problems of the whole program: it does not answer, or reports trouble. */
function judge() {
  const silent = performance.now() - heardAt;
  const stale = silent > STALE_MS;
  const name = answer?.program ?? "the program";
  const since = answer ? ` since ${heardAtClock.toLocaleTimeString("en-GB")}` : "";
  const old = answer ? ". The data below is old." : ".";
  const problems = [
    ...(stale ? [`Stale: no answer from ${name}${since}${failure && ` (${failure})`}${old}`] : []),
    ...Object.entries(answer?.trouble ?? {}).filter(([part]) => !part.endsWith("/link")).map(([part, reason]) => `${part}: ${reason}`),
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
  if (answer || stale) judged(document.getElementById("verdict"), answer, stale);
  const wrong = problems.length || Object.keys(answer?.trouble ?? {}).length || answer?.streams.some((row) => ["disconnected", "unanswered"].includes(row.state));
  document.title = `${wrong ? "▲ " : ""}${answer ? `${answer.program} on ${answer.host}` : "streams"}`;
}

// -- asking ---
function take(news) {
  if (answer && (answer.started !== news.started || answer.program !== news.program)) history.clear();
  answer = news;
  const program = programOf(answer);
  const names = new Set(answer.streams.map((row) => row.stream));
  for (const name of history.keys()) if (!names.has(name)) history.delete(name);
  for (const row of answer.streams) {
    const past = history.get(row.stream) ?? [];
    history.set(row.stream, past);
    [row.at, row.trouble] = [answer.now, answer.trouble];
    row.total = { records: program.records(row), bytes: program.bytes(row) };
    row.rate = rateSince(past.find((old) => old.at >= row.at - RATE_SECONDS - 0.5), row);
    row.past = past; // one array for all rows of a stream
    past.push(row);
    while (past[0].at < row.at - HISTORY_SECONDS) past.shift();
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
      if (!response.ok) throw new Error(`it answered with status ${response.status}`);
      take(await response.json());
      [heardAt, heardAtClock, failure] = [performance.now(), new Date(), ""];
      draw();
    } catch (error) {
      failure = error.name === "TimeoutError" ? `timed out after ${ANSWER_MS / 1000} s` : error.message;
    }
  }
  setTimeout(ask, Math.max(POLL_MS - (performance.now() - began), 0));
}

document.addEventListener("visibilitychange", () => {
  heardAt = performance.now(); // a hidden page does not poll, so the silence is its own
});
setInterval(judge, 200);
ask();
