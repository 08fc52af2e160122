// What is shown for each stream, by program: each measure as words and numbers, and which measures get a ratio.
// docs/api.md describes the fields; `rate` is added by page.js.

export const RATE_SECONDS = 5;

// -- words ------------------------------------------------------------------------------------------------------

export const NONE = "–";
export const known = (value) => typeof value === "number" && Number.isFinite(value);
const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3, useGrouping: true });
export const count = (value) => value.toLocaleString("en");
const plural = (value, one) => `${count(value)} ${one}${value === 1 ? "" : one.endsWith("ch") ? "es" : "s"}`;
const sum = (values) => values.reduce((total, value) => total + value, 0);

function milliseconds(seconds) {
  if (!known(seconds)) return NONE;
  const three = (value) => value.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
  return seconds < 1 ? `${three(seconds * 1e3)} ms` : `${three(seconds)} s`;
}

export function bytes(value) {
  if (!known(value)) return NONE;
  const step = value >= 1e9 ? 3 : value >= 1e6 ? 2 : value >= 1e3 ? 1 : 0;
  return `${short(value / 1000 ** step)} ${["B", "kB", "MB", "GB"][step]}`;
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

const byName = (counts) => Object.entries(counts).filter(([, value]) => value).map(([name, value]) => `${name} ${count(value)}`);
const percentiles = ({ p95, p99 }) => `p95 ${milliseconds(p95)} · p99 ${milliseconds(p99)}`;

/** Percentiles of the last minutes; if nothing happened in them, as with handshakes, of the values before. */
function summed(summary, one) {
  const { recent } = summary;
  if (!summary.count) return { text: NONE, note: "none yet" };
  if (recent.count) {
    return { text: milliseconds(recent.median), unit: `of ${plural(recent.count, one)}`, note: `${percentiles(recent)} · last ${lastMinutes(recent)}` };
  }
  return { text: milliseconds(summary.median), unit: `of ${plural(summary.count, one)}`, note: `${percentiles(summary)} · none in the last ${lastMinutes(recent)}` };
}
const lastMinutes = ({ seconds }) => `${Math.round(seconds / 60)} minutes`;

// -- what is shown for a stream ---------------------------------------------------------------------------------

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

/** A mode's name; one over our own TLS, which nobody has audited, is marked (docs/kemtls.md). */
function named(mode, stack) {
  return mode.startsWith("kemtls") || stack === "tls13" ? `${mode} (experimental)` : mode;
}

/** Our own TLS, if a link of this mode runs over it: a mode's name alone does not tell. */
const ownStack = (row, mode) => row.newest_links.find((link) => link.mode === mode && link.stack === "tls13")?.stack;

/** The TLS differences between the two sides of a comparison: a ratio can be attributed to nothing else. */
function differences(original, twin) {
  if (!original.link || !twin.link) return "";
  const found = ["version", "group", "cipher", "authentication"].filter((fact) => original.link[fact] !== twin.link[fact]);
  if (!found.length) return "The links do not differ in TLS version, group, cipher or authentication.";
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

// -- whether records arrive -------------------------------------------------------------------------------------

const shortened = (text, most = 160) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const records = (rows, of) => sum(rows.map(of));
const missing = ({ records: r, spool }) => r.accepted - r.acknowledged - spool.records - r.dropped - r.dead_lettered;

/** Why a stream's records do not arrive; empty if they do. */
function why(row, trouble) {
  const known = trouble[`${row.stream}/link`] ?? trouble[row.stream];
  if (known) return known;
  if (row.state === "disconnected") return row.last_failure?.detail || row.last_failure?.reason || "no link";
  return row.state === "unanswered" ? `no answer for ${duration(row.unanswered_seconds)}` : "";
}

/** What is wrong besides streams that do not arrive: what to call it. */
function besides(trouble) {
  if (/^the last reload was refused/.test(trouble.config ?? "")) return "the last reload was refused, and the configuration before it is in use";
  if (trouble.config) return "not all of the configuration is in use";
  return `something else is wrong (${Object.keys(trouble).slice(0, 3).join(", ")})`;
}

/** Which configuration is in use, and what came of the last reload. */
export function configOf({ config, now }) {
  const last = config.last_reload;
  const ago = last && `${duration(Math.max(now - last.at, 0))} ago`;
  const reload = !last ? "as it was at the start" : last.outcome === "taken" ? `reloaded ${ago}` : `the reload ${ago} was refused`;
  return `configuration ${config.digest}, ${reload}`;
}

/** A receiver's refusal without its code, which is for machines. */
const plain = (text) => text.replace(/the peer refused: [a-z_]+: /, "");

function forwarderVerdict({ streams, trouble }) {
  if (!streams.length) return Object.keys(trouble).length ? ["disconnected", "▲", "No stream runs"] : ["waiting", "◌", "No streams are configured"];
  const many = streams.length === 1 ? "The stream arrives" : `All ${count(streams.length)} streams arrive`;
  const bad = streams.filter((row) => why(row, trouble));
  if (bad.length) {
    const said = bad.slice(0, 2).map((row) => `${row.stream}: ${shortened(plain(why(row, trouble)))}`);
    const more = bad.length > 2 ? [`and ${count(bad.length - 2)} more below`] : [];
    const of = `${streams.length === 1 ? "stream" : "streams"} ${bad.length === 1 ? "does" : "do"} not arrive`;
    return ["disconnected", "▲", `${count(bad.length)} of ${count(streams.length)} ${of}: ${[...said, ...more].join(" · ")}`];
  }
  const lost = records(streams, missing);
  const dropped = records(streams, (row) => row.records.dropped);
  const counts = [
    `${count(records(streams, (row) => row.records.acknowledged))} records acknowledged`,
    `${count(records(streams, (row) => row.spool.records))} waiting`,
    ...(dropped ? [`${count(dropped)} dropped`] : []),
    `${count(lost)} missing`,
  ].join(", ");
  if (lost) return ["disconnected", "▲", `Records are missing: ${counts}`];
  return Object.keys(trouble).length ? ["unanswered", "▲", `${many}, but ${besides(trouble)}: ${counts}`] : ["connected", "●", `${many}: ${counts}`];
}

function receiverVerdict({ streams, trouble }) {
  const links = sum(streams.map((row) => row.links));
  const stored = sum(streams.map((row) => (row.records.stored ?? 0)));
  const counts = `${plural(streams.length, "stream")}, ${plural(links, "link")} open, ${count(stored)} records stored since the start`;
  if (Object.keys(trouble).length) return ["unanswered", "▲", `${counts}, but ${besides(trouble)}`];
  return streams.length ? ["connected", "●", counts] : ["waiting", "◌", "No forwarder has opened a link yet"];
}

/** Whether records arrive: a kind of state, its sign, and a sentence. */
export const verdictOf = (answer) => programOf(answer).verdict(answer);

/** The state of a stream in the table. */
export function stateOf(program, row, trouble = {}) {
  const refused = /^refused/.test(trouble[`${row.stream}/link`] ?? "");
  return refused ? ["disconnected", `✕ refused for ${duration(row.unlinked_seconds)}`] : program.state(row);
}

const perSecond = { label: "Records/s", number: true, show: (row) => (known(row.rate.records) ? short(row.rate.records) : NONE) };

const FORWARDER = {
  verdict: forwarderVerdict,
  overview: [
    perSecond,
    { label: "Waiting", number: true, show: (row) => count(row.spool.records) },
    { label: "Oldest", number: true, show: (row) => (row.spool.records ? duration(row.spool.oldest_seconds) : NONE) },
    { label: "Lag", number: true, show: (row) => bytes(row.source_lag_bytes) },
    {
      label: "Last error",
      show: (row, answer) => {
        if (!row.last_failure) return NONE;
        const ago = duration(Math.max(answer.now - row.last_failure.at, 0));
        return shortened(`${ago} ago: ${plain(row.last_failure.detail || row.last_failure.reason)}`, 200);
      },
    },
  ],
  explanation:
    "Medians and percentiles are those of the last 5 minutes, at most of 10,000 values of each stream, or of the values before " +
    "if there were none; ratios are of the last 10,000 values; sparklines show the last two minutes, from " +
    "zero, with one scale for streams shown side by side. A ratio here has no interval: for a verdict use logbench compare.",
  empty: "No streams are configured.",
  sink: () => "",
  files: true,
  bytes: (row) => row.acknowledged_bytes,
  records: (row) => row.records.acknowledged,
  mode: (row) => named(row.mode, row.link?.stack),
  state: (row) => [row.state, forwarderState(row)],
  group: (row) => (row.link ? `${row.link.group} · ${row.link.version}` : "no link"),
  details: (row) => [
    ...(row.link ? [`${row.link.cipher} · ${row.link.authentication}`, `to ${row.link.receiver} for ${duration(row.link.age_seconds)}`] : [`mode ${row.mode}`, "retrying"]),
    row.topic ? `topic ${row.topic}` : "",
  ],
  differences,
  ratios: [
    medianRatio("Batch duration", "batch_duration_seconds", "batches"),
    medianRatio("TLS handshake", "handshake_seconds", "handshakes"),
    { label: "Handshake size", of: () => "bytes of the links in use", value: handshakeBytes, format: bytes },
    throughputRatio("acknowledged"),
  ],
  measures: [
    {
      label: "Batch duration", hint: "sealed to acknowledged; median",
      show: (row) => summed(row.batch_duration_seconds, "batch"),
      series: (row) => row.batch_duration_seconds.recent.median,
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
        note: row.unanswered_seconds ? `answer outstanding for ${duration(row.unanswered_seconds)}` : "no answer outstanding",
      }),
    },
    {
      label: "Spool", hint: "waiting to be acknowledged",
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
    { label: "Faults", hint: "links since the start, records since the spool was created", show: faults, wrong: (row) => faults(row).text !== "✓ none" },
  ],
};

/** How the connections to the sink's servers are protected; those that are open now, else all since the start. */
function nextHop(shares) {
  const open = shares.filter((share) => share.open_links);
  const ways = (open.length ? open : shares).map(
    (share) => `${plural(open.length ? share.open_links : share.links, "connection")} under ${protection(share)}`,
  );
  return ways.length ? `to the sink: ${ways.join(" · ")}${open.length ? "" : " before, none now"}` : "";
}

function protection(share) {
  return share.version === "none" ? "no TLS" : `${share.group}, ${share.version}, ${share.authentication}`;
}

const RECEIVER = {
  verdict: receiverVerdict,
  overview: [
    perSecond,
    { label: "Stored", number: true, show: (row) => count(row.records.stored ?? 0) },
    { label: "Refused", number: true, show: (row) => count((row.records.refused ?? 0) + (row.records.uncertain ?? 0)) },
    { label: "Links", show: (row) => Object.entries(row.links_by_group).map(([group, links]) => `${count(links)} × ${group}`).join(" · ") || "none" },
  ],
  explanation:
    "Medians and percentiles are those of the last 5 minutes, at most of 10,000 values of each stream, or of the values before " +
    "if there were none; ratios are of the last 10,000 values; sparklines show the last two minutes, from " +
    "zero, with one scale for streams shown side by side. Totals count from the start of this receiver process.",
  empty: "No forwarder has opened a link yet.",
  sink: (answer) => nextHop(answer.sink),
  bytes: (row) => row.bytes.stored ?? 0,
  records: (row) => row.records.stored ?? 0,
  mode: (row) => row.modes.map((mode) => named(mode, ownStack(row, mode))).join(", "),
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
      series: (row) => row.sink_seconds.recent.median,
    },
    {
      label: "TLS handshake", hint: "first byte read to complete; median",
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
  links: (row) => row.newest_links.map((link) => ({ ...link, mode: named(link.mode, link.stack) })),
};

export const programOf = (answer) => (answer.program === "logreceiver" ? RECEIVER : FORWARDER);
