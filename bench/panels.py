"""What the dashboard shows: titles, descriptions and queries of its panels. bench/dashboard.py makes JSON of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Panel(NamedTuple):
    """`queries`: an expression and its legend each. Widths are in columns of 24; an empty legend shows the labels."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "none"
    kind: str = "timeseries"
    width: int = 8


def average(name: str, by: str, window: str = "") -> str:
    """Mean of a histogram; over a window, or else since the programs started."""

    def part(suffix: str) -> str:
        series = name.replace("{", f"_{suffix}{{", 1)
        return f"sum by ({by}) ({f'rate({series}[{window}])' if window else series})"

    return f"{part('sum')} / {part('count')}"


def quantile(share: float, name: str, by: str, window: str = "") -> str:
    """Percentile of a histogram, within one of its buckets; over a window, or else since the programs started."""
    series = name.replace("{", "_bucket{", 1)
    return f"histogram_quantile({share}, sum by (le, {by}) ({f'rate({series}[{window}])' if window else series}))"


def quantiles(name: str, by: str, legend: str, window: str = "") -> list[tuple[str, str]]:
    """Median, 95th and 99th percentile."""
    return [(quantile(share, name, by, window), f"{legend} p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


NOW = "$__rate_interval"
HANDSHAKE = 'tls_handshake_seconds{role="forwarder", stream=~"$stream"}'
BATCH = 'logfwd_batch_duration_seconds{stream=~"$stream"}'
RARE = "Links are renewed about once an hour, so this is over all handshakes since the agents started."


def ratio(figure: str, label: str) -> tuple[str, str]:
    """A figure of the twin, over that of its original. The streams' own labels differ, so both are summed away."""
    twin, original = (figure.replace('=~"$stream"', f'="${name}"') for name in ("twin", "original"))
    return f"max({twin}) / max({original})", label


ROWS: dict[str, Sequence[Panel]] = {
    "The two figures": (
        Panel(
            "TLS latency by stream and group",
            "The first figure of 2022: average TLS handshake, without the TCP connect, as the agents see it. " + RARE,
            [(average(HANDSHAKE, "stream, group, version"), "{{stream}} {{group}} {{version}}")],
            "s",
            width=12,
        ),
        Panel(
            "Average batch send duration by stream",
            "The second figure of 2022: batches sealed until acknowledged, the sink's time included.",
            [(average(BATCH, "stream, mode", NOW), "{{stream}} {{mode}}")],
            "s",
            width=12,
        ),
    ),
    "Side by side": (
        Panel(
            "Twin over original",
            "1 is no difference. Read it over minutes, not at one point; `logbench compare` gives it with an interval.",
            [
                ratio(average(BATCH, "stream", NOW), "batch duration, average"),
                ratio(quantile(0.5, BATCH, "stream", NOW), "batch duration, median"),
                ratio(average(HANDSHAKE, "stream"), "TLS handshake, average"),
            ],
        ),
        Panel(
            "Batch send duration, percentiles",
            "Sealed until acknowledged. A percentile lies within one bucket of the histogram (six a decade).",
            quantiles(BATCH, "stream", "{{stream}}", NOW),
            "s",
        ),
        Panel(
            "TLS handshake, percentiles",
            "Without the TCP connect. " + RARE,
            quantiles(HANDSHAKE, "stream, group", "{{stream}} {{group}}"),
            "s",
        ),
        Panel(
            "Where batch duration goes",
            "Average of each stage: seal, spool, queue, wire (less the receiver's own time), sink. TLS is in wire.",
            [
                (
                    average('logfwd_batch_stage_seconds{stream=~"$stream"}', "stream, stage", NOW),
                    "{{stream}} {{stage}}",
                )
            ],
            "s",
        ),
        Panel(
            "Records",
            "Accepted from the source and acknowledged by receivers. Apart for long: the spool grows.",
            [
                (
                    f'sum by (stream, state) (rate(logfwd_records_total{{state=~"accepted|acknowledged", '
                    f'stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{state}}",
                )
            ],
            "recps",
        ),
        Panel(
            "Bytes stored",
            "Compressed bytes of batches that receivers stored.",
            [
                (
                    f'sum by (stream) (rate(logreceiver_bytes_total{{outcome="stored", stream=~"$stream"}}[{NOW}]))',
                    "{{stream}}",
                )
            ],
            "Bps",
        ),
        Panel(
            "Bytes of a handshake",
            "Average by mode and direction as the agents see it, certificates included. " + RARE,
            [
                (
                    average('tls_handshake_bytes{role="forwarder", stream=~"$stream"}', "mode, direction"),
                    "{{mode}} {{direction}}",
                )
            ],
            "bytes",
        ),
        Panel(
            "TCP connect",
            "Average, before the handshake begins: the network's share, the same for every mode. " + RARE,
            [(average('tcp_connect_seconds{stream=~"$stream"}', "stream"), "{{stream}}")],
            "s",
        ),
        Panel(
            "CPU",
            "Share of one core that each program uses.",
            [(f"rate(process_cpu_seconds_total[{NOW}])", "{{job}} {{instance}}")],
            "percentunit",
        ),
    ),
    "Is anything lost?": (
        Panel(
            "Records in no book",
            "Accepted - acknowledged - spooled - dropped - dead-lettered since the spool was made. It has to be 0.",
            [('sum by (stream) (logfwd_unaccounted_records{stream=~"$stream"})', "{{stream}}")],
            kind="stat",
        ),
        Panel(
            "Dropped, dead-lettered, invalid",
            "Since the agents started. Dropped: a full spool made room, or a damaged one lost them. "
            "Dead-lettered: the sink refuses them for what they are. Invalid: no JSON, stored wrapped or left out as "
            "the stream says.",
            [
                (
                    'sum by (stream, state) (logfwd_records_total{state=~"dropped|dead_lettered|invalid", '
                    'stream=~"$stream"})',
                    "{{stream}} {{state}}",
                )
            ],
        ),
        Panel(
            "Resets and clones",
            "Since the programs started. A reset may store batches in doubt twice; a clone is an agent whose state "
            "directory was copied.",
            [
                ('sum by (stream, reason) (logfwd_run_resets_total{stream=~"$stream"})', "{{stream}} {{reason}}"),
                ('sum by (stream) (logreceiver_clones_suspected_total{stream=~"$stream"})', "{{stream}} clone"),
            ],
        ),
        Panel(
            "Source lag",
            "Bytes in the files that are not in the spool yet.",
            [('sum by (stream) (logfwd_source_lag_bytes{stream=~"$stream"})', "{{stream}}")],
            "bytes",
        ),
        Panel(
            "Spool",
            "Bytes of batches that wait to be acknowledged.",
            [('sum by (stream) (logfwd_spool_bytes{stream=~"$stream"})', "{{stream}}")],
            "bytes",
        ),
        Panel(
            "Oldest batch in the spool",
            "The oldest of all agents. Far below a second while links and sink keep up.",
            [('max by (stream) (logfwd_spool_oldest_seconds{stream=~"$stream"})', "{{stream}}")],
            "s",
        ),
    ),
    "Links and policy": (
        Panel(
            "Links",
            "Open at the receivers now, by group.",
            [('sum by (stream, group) (logreceiver_links{stream=~"$stream"})', "{{stream}} {{group}}")],
        ),
        Panel(
            "Link failures",
            "Links that could not be made or were lost, and batches that were refused, by reason, per second.",
            [
                (
                    f'sum by (stream, reason) (rate(logfwd_link_failures_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{reason}}",
                )
            ],
            "cps",
        ),
        Panel(
            "Policy violations and downgrades",
            "Since the programs started. Violation: TLS gave less than the mode demands, so the link was closed before "
            "any data. Downgrade: a mode with a choice got its second.",
            [
                (
                    'sum by (stream, reason) (tls_policy_violations_total{stream=~"$stream"})',
                    "{{stream}} violation: {{reason}}",
                ),
                (
                    'sum by (stream, reason) (tls_downgrades_total{stream=~"$stream"})',
                    "{{stream}} downgrade: {{reason}}",
                ),
            ],
        ),
        Panel(
            "Failed handshakes and refused links",
            "Since the programs started, by result or code.",
            [
                ('sum by (job, result) (tls_handshakes_total{result!="ok"})', "{{job}} handshake: {{result}}"),
                ("sum by (code) (logreceiver_refused_links_total)", "refused link: {{code}}"),
            ],
        ),
        Panel(
            "Certificates end in",
            "Own: what the program shows to peers. Peer: what receivers showed on the newest link of each stream.",
            [
                (
                    "sort(min by (job, instance, owner) (tls_certificate_expiry_timestamp_seconds) - time())",
                    "{{instance}} {{owner}}",
                )
            ],
            "s",
            kind="bargauge",
        ),
        Panel(
            "Links now",
            "Each stream's link: receiver, group, cipher and version that were negotiated.",
            [('logfwd_link_info{stream=~"$stream"}', "")],
            kind="table",
        ),
    ),
    "Receivers and sink": (
        Panel(
            "Batches by outcome",
            "Stored, duplicate (recognised, not stored again), refused, uncertain (asked about before it is repeated).",
            [
                (
                    f'sum by (stream, outcome) (rate(logreceiver_batches_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{outcome}}",
                )
            ],
            "cps",
        ),
        Panel(
            "Sink time",
            "What Kafka, or the embedded log, took for one batch.",
            quantiles('logreceiver_sink_seconds{stream=~"$stream"}', "sink", "{{sink}}", NOW),
            "s",
        ),
        Panel(
            "Refused by the brokers",
            "Batches that the sink refused or left uncertain, and ledger records that it did not take, per second.",
            [
                (
                    'sum by (stream, outcome) (rate(logreceiver_batches_total{outcome=~"refused|uncertain", '
                    f'stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{outcome}}",
                ),
                (f"sum by (instance) (rate(logreceiver_ledger_dropped_total[{NOW}]))", "{{instance}} ledger"),
            ],
            "cps",
        ),
        Panel(
            "Memory",
            "Resident memory of each program.",
            [("process_resident_memory_bytes", "{{job}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Programs",
            "1: its metrics were read just now.",
            [('up{job=~"logfwd|logreceiver"}', "{{job}} {{instance}}")],
            kind="stat",
        ),
        Panel(
            "Alerts that fire",
            "From deploy/prometheus/alerts.yml; docs/monitoring.md says what to do about each.",
            [('ALERTS{alertstate="firing"}', "")],
            kind="table",
        ),
    ),
}


def table() -> str:
    """The panels, for docs/monitoring.md."""
    lines = ["| panel | shows |", "|---|---|"]
    for title, panels in ROWS.items():
        lines += [f"| **{title}** | |", *(f"| {panel.title} | {panel.description} |" for panel in panels)]
    return "\n".join(lines) + "\n"
