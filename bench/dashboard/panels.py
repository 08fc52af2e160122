"""The dashboard's panels: titles, descriptions and queries. grafana.py turns them into Grafana's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Panel(NamedTuple):
    """`queries`: pairs of expression and legend; an empty legend shows the labels. `width` is in columns, of 24."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "none"
    kind: str = "timeseries"
    width: int = 8


def average(name: str, by: str, window: str = "") -> str:
    """Mean of a histogram, over a window or, without one, since the programs started."""

    def part(suffix: str) -> str:
        series = name.replace("{", f"_{suffix}{{", 1)
        return f"sum by ({by}) ({f'rate({series}[{window}])' if window else series})"

    return f"{part('sum')} / {part('count')}"


def quantile(share: float, name: str, by: str, window: str = "") -> str:
    """Percentile of a histogram, exact to one bucket, over a window or, without one, since the programs started."""
    series = name.replace("{", "_bucket{", 1)
    return f"histogram_quantile({share}, sum by (le, {by}) ({f'rate({series}[{window}])' if window else series}))"


def quantiles(name: str, by: str, legend: str, window: str = "") -> list[tuple[str, str]]:
    """Median, 95th and 99th percentile."""
    return [(quantile(share, name, by, window), f"{legend} p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


NOW = "$__rate_interval"
HANDSHAKE = 'tls_handshake_seconds{role="forwarder", stream=~"$stream"}'
BATCH = 'logfwd_batch_duration_seconds{stream=~"$stream"}'
RARE = "Links are renewed about once an hour, so this covers all handshakes since the forwarders started."


def ratio(figure: str, label: str) -> tuple[str, str]:
    """The twin's figure divided by its original's. `max` drops the streams' labels, which differ."""
    twin, original = (figure.replace('=~"$stream"', f'="${name}"') for name in ("twin", "original"))
    return f"max({twin}) / max({original})", label


ROWS: dict[str, Sequence[Panel]] = {
    "The two figures": (
        Panel(
            "TLS latency by stream and group",
            "The first figure of 2022: average TLS handshake measured by the forwarders, without the TCP connect. "
            + RARE,
            [(average(HANDSHAKE, "stream, group, version"), "{{stream}} {{group}} {{version}}")],
            "s",
            width=12,
        ),
        Panel(
            "Average batch send duration by stream",
            "The second figure of 2022: average time from a batch's seal to its acknowledgement, including the sink.",
            [(average(BATCH, "stream, mode", NOW), "{{stream}} {{mode}}")],
            "s",
            width=12,
        ),
    ),
    "Side by side": (
        Panel(
            "Ratio of twin to original",
            "1 means no difference. Judge it over minutes, not at one point; `logbench compare` adds an interval.",
            [
                ratio(average(BATCH, "stream", NOW), "batch duration, average"),
                ratio(quantile(0.5, BATCH, "stream", NOW), "batch duration, median"),
                ratio(average(HANDSHAKE, "stream"), "TLS handshake, average"),
            ],
        ),
        Panel(
            "Batch send duration, percentiles",
            "From seal to acknowledgement. Percentiles are exact to one bucket of the histogram (six per decade).",
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
            "Batch duration by stage",
            "Average of each stage: seal, spool, queue, wire (without the receiver's own time; includes TLS), sink.",
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
            "Accepted from the source and acknowledged by receivers. If they stay apart, the spool grows.",
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
            "Handshake bytes",
            "Average by mode and direction as counted by the forwarders, certificates included. " + RARE,
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
            "Average TCP connect before the handshake: the network's share, the same for every mode. " + RARE,
            [(average('tcp_connect_seconds{stream=~"$stream"}', "stream"), "{{stream}}")],
            "s",
        ),
        Panel(
            "CPU",
            "CPU of each program, as a share of one core.",
            [(f"rate(process_cpu_seconds_total[{NOW}])", "{{job}} {{instance}}")],
            "percentunit",
        ),
    ),
    "Is anything lost?": (
        Panel(
            "Unaccounted records",
            "Accepted - acknowledged - spooled - dropped - dead-lettered since the spool was created. It must be 0.",
            [('sum by (stream) (logfwd_unaccounted_records{stream=~"$stream"})', "{{stream}}")],
            kind="stat",
        ),
        Panel(
            "Dropped, dead-lettered, invalid",
            "Since the forwarders started. Dropped: a full spool made room, or a damaged one lost them. "
            "Dead-lettered: the sink refuses the records themselves. Invalid: not JSON, so stored wrapped or left out, "
            "as the stream is configured.",
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
            "Since the programs started. A reset may store batches twice whose outcome is unknown; a clone is a "
            "forwarder whose state directory was copied.",
            [
                ('sum by (stream, reason) (logfwd_run_resets_total{stream=~"$stream"})', "{{stream}} {{reason}}"),
                ('sum by (stream) (logreceiver_clones_suspected_total{stream=~"$stream"})', "{{stream}} clone"),
            ],
        ),
        Panel(
            "HTTP requests by status",
            "Answers to HTTP clients per second. 429: the spool is full; 503: the stream starts, stops or has a "
            "problem; none: the outcome was unknown. Forgotten keys: a repeated request may be stored twice.",
            [
                (
                    f'sum by (stream, code) (rate(logfwd_http_requests_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{code}}",
                ),
                (
                    f'sum by (stream) (rate(logfwd_evicted_keys_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} forgotten keys",
                ),
            ],
            "cps",
        ),
        Panel(
            "Files that may have cost or repeated records",
            "Bytes of files that were read again from the start, or whose end was never read; of not_found, recognised "
            "and edited: the bytes before the position, which are neither lost nor repeated.",
            [
                (
                    f'sum by (stream, event) (rate(logfwd_file_bytes_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{event}}",
                ),
                (
                    f'sum by (stream, event) (rate(logfwd_files_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{event}}, files",
                ),
            ],
            "Bps",
        ),
        Panel(
            "Syslog messages dropped, connections refused",
            "Messages per second that were sent and not kept (no_room: the stream's buffer is full; receive_queue: the "
            "kernel's is; too_long), and syslog connections per second that were refused or ended, by reason.",
            [
                (
                    f'sum by (stream, reason) (rate(logfwd_syslog_dropped_messages_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} {{reason}}",
                ),
                (
                    "sum by (stream, reason) "
                    f'(rate(logfwd_syslog_ended_connections_total{{stream=~"$stream"}}[{NOW}]))',
                    "{{stream}} connection {{reason}}",
                ),
            ],
            "cps",
        ),
        Panel(
            "Source lag",
            "Bytes of files, requests and messages that are not in the spool yet.",
            [('sum by (stream) (logfwd_source_lag_bytes{stream=~"$stream"})', "{{stream}}")],
            "bytes",
        ),
        Panel(
            "Spool",
            "Bytes of batches waiting to be acknowledged, and of dead letters.",
            [
                ('sum by (stream) (logfwd_spool_bytes{stream=~"$stream"})', "{{stream}}"),
                ('sum by (stream) (logfwd_dead_letter_bytes{stream=~"$stream"})', "{{stream}} dead letters"),
            ],
            "bytes",
        ),
        Panel(
            "Oldest batch in the spool",
            "Age of the oldest batch of all forwarders. Far below a second while links and sink keep up.",
            [('max by (stream) (logfwd_spool_oldest_seconds{stream=~"$stream"})', "{{stream}}")],
            "s",
        ),
    ),
    "Links and policy": (
        Panel(
            "Links",
            "Links open at the receivers now, by group.",
            [('sum by (stream, group) (logreceiver_links{stream=~"$stream"})', "{{stream}} {{group}}")],
        ),
        Panel(
            "Link failures",
            "Links that failed to open or were lost, and batches that were refused, by reason, per second.",
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
            "Since the programs started. Violation: TLS negotiated less than the mode demands, so the link was closed "
            "before any data. Downgrade: a mode that allows a choice did not get its first choice.",
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
            "Authentication",
            "Handshakes of the forwarders by how the receiver was authenticated: the weakest of its own key and the "
            "signatures of its chain. " + RARE,
            [
                (
                    'sum by (stream, authentication) (tls_authentications_total{role="forwarder", stream=~"$stream"})',
                    "{{stream}} {{authentication}}",
                )
            ],
        ),
        Panel(
            "Failed handshakes and refused links",
            "Since the programs started, by result or code. Probes are no failures: connections without a hello.",
            [
                ('sum by (job, result) (tls_handshakes_total{result!="ok"})', "{{job}} handshake: {{result}}"),
                ("sum by (code) (logreceiver_refused_links_total)", "refused link: {{code}}"),
                ("sum(logreceiver_probes_total)", "probes"),
            ],
        ),
        Panel(
            "Last reload taken",
            "0: the program refused its new configuration and goes on with the last good one; its log says why.",
            [
                (f"min by (instance) ({program}_config_last_reload_successful)", f"{program} {{{{instance}}}}")
                for program in ("logfwd", "logreceiver")
            ],
        ),
        Panel(
            "What is wrong",
            "How many things are wrong with each program. /readyz, `status` and the live page name them.",
            [
                (
                    f"sum by (instance, severity) ({program}_health_reasons)",
                    f"{program} {{{{instance}}}} {{{{severity}}}}",
                )
                for program in ("logfwd", "logreceiver")
            ],
        ),
        Panel(
            "Configuration in use since",
            "How long ago a program last took a configuration, at its start or by a reload.",
            [
                (
                    f"time() - max by (instance) ({program}_config_last_reload_timestamp_seconds)",
                    f"{program} {{{{instance}}}}",
                )
                for program in ("logfwd", "logreceiver")
            ],
            "s",
        ),
        Panel(
            "Configurations",
            "How many programs use each configuration, by its digest.",
            [
                (f"count by (digest) ({program}_config_info)", f"{program} {{{{digest}}}}")
                for program in ("logfwd", "logreceiver")
            ],
        ),
        Panel(
            "Revocation lists are due in",
            "A receiver's first list that has to be renewed; one that is past that stays in force.",
            [("sort(logreceiver_crl_next_update_timestamp_seconds > 0) - time()", "{{instance}}")],
            "s",
        ),
        Panel(
            "Certificates expire in",
            "Own: the program's certificate. Peer: the receiver's certificate on the newest link of each stream.",
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
            "Stored, duplicate (recognised, not stored again), refused, uncertain (checked before it is repeated).",
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
            "Time that Kafka, or the embedded log, took to store one batch.",
            quantiles('logreceiver_sink_seconds{stream=~"$stream"}', "sink", "{{sink}}", NOW),
            "s",
        ),
        Panel(
            "Refused by the sink",
            "Batches that the sink refused or left uncertain, and ledger records that could not be written, a second.",
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
            "Log lines dropped",
            "Since the programs started: nobody read standard error, or it was full or closed.",
            [("sum by (job, instance) (log_lines_dropped_total)", "{{job}} {{instance}}")],
        ),
        Panel(
            "Tasks that failed",
            "Since the programs started. Each was begun again; the log line `task failed` has the error.",
            [("sum by (job, instance, task) (task_failures_total)", "{{job}} {{instance}} {{task}}")],
        ),
        Panel(
            "Programs",
            "1: the last scrape of its metrics succeeded.",
            [('up{job=~"logfwd|logreceiver"}', "{{job}} {{instance}}")],
            kind="stat",
        ),
        Panel(
            "Firing alerts",
            "Defined in deploy/prometheus/alerts.yml; docs/monitoring.md says what to do about each.",
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
