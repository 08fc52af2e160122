"""Every metric of both programs, declared once: name, kind, unit, labels, one sentence.

Nothing is observed that is not in `CATALOGUE`; `python -m streams.telemetry.catalog` prints
docs/metrics.md from it. Names and units follow Prometheus: base units, `_total` on counters. Records are counted here
only as sums over batches: no call of this module is made for each record.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.registry import Collector

from streams.telemetry.window import WINDOW, Summary, WindowedHistogram

__all__ = ["CATALOGUE", "CollectorRegistry", "Counter", "ForwarderMetrics", "Metric", "ReceiverMetrics"]

SECONDS = (
    *(base * step for base in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    10.0,
)
MAX_STREAM_LABELS = 200
OTHER_STREAMS = "(other)"
"""What a receiver counts streams under beyond the first so many: a rule may let in any name, and names stay."""
HANDSHAKE_BYTES = (512.0, 1024.0, 1536.0, 2048.0, 3072.0, 4096.0, 6144.0, 8192.0, 12288.0, 16384.0, 24576.0, 32768.0)

Family = TypeVar("Family", Counter, Gauge, Histogram)


class Metric(NamedTuple):
    """One line of the catalogue. `unit` is empty where things are counted."""

    name: str
    kind: Literal["histogram", "counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    sentence: str
    buckets: tuple[float, ...] = ()


def _seconds(name: str, labels: tuple[str, ...], sentence: str) -> Metric:
    return Metric(name, "histogram", "seconds", labels, sentence, tuple(round(bound, 6) for bound in SECONDS))


TLS = ("stream", "mode", "group", "version", "role")

HANDSHAKE = _seconds(
    "tls_handshake_seconds",
    TLS,
    "Handshake duration, without the TCP connect: ClientHello written (forwarder) or first byte read (receiver) until "
    "complete.",
)
CONNECT = _seconds("tcp_connect_seconds", ("stream",), "TCP connect, before the handshake begins.")
HANDSHAKES = Metric(
    "tls_handshakes_total",
    "counter",
    "",
    (*TLS, "result"),
    "Handshakes by result: ok, or why not. A forwarder counts ok at WELCOME: only then is its certificate accepted. "
    "A receiver knows stream and mode from HELLO on; of links that get no further they are empty.",
)
TLS_BYTES = Metric(
    "tls_handshake_bytes",
    "histogram",
    "bytes",
    ("stream", "mode", "role", "direction"),
    "Bytes of one handshake, by direction (in, out).",
    HANDSHAKE_BYTES,
)
VIOLATIONS = Metric(
    "tls_policy_violations_total",
    "counter",
    "",
    ("stream", "reason"),
    "Links closed before the first byte of data: TLS gave less than the stream's mode demands.",
)
DOWNGRADES = Metric(
    "tls_downgrades_total",
    "counter",
    "",
    ("stream", "reason"),
    "Handshakes in which a mode with a choice did not get its first choice; the reason is the group it got.",
)
CERTIFICATE_EXPIRY = Metric(
    "tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "seconds",
    ("stream", "owner"),
    "When a certificate ends, in seconds since the epoch: own, the one shown to peers (stream is empty); peer, the "
    "receiver's on the newest link of a forwarder's stream.",
)
SHARED = (HANDSHAKE, CONNECT, HANDSHAKES, TLS_BYTES, VIOLATIONS, DOWNGRADES, CERTIFICATE_EXPIRY)

BATCH_DURATION = _seconds(
    "logfwd_batch_duration_seconds", ("stream", "mode"), "Batch duration: sealed until acknowledged."
)
BATCH_STAGE = _seconds(
    "logfwd_batch_stage_seconds",
    ("stream", "stage"),
    "Where the batch duration went: seal, spool, queue, wire (sent until acknowledged, less the receiver's own time), "
    "sink.",
)
LINK_INFO = Metric(
    "logfwd_link_info",
    "gauge",
    "",
    ("stream", "receiver", "group", "cipher", "version"),
    "1 for the link that the stream has now.",
)
RECORDS = Metric(
    "logfwd_records_total",
    "counter",
    "",
    ("stream", "state"),
    "Records by state: accepted, invalid, acknowledged, dropped, dead_lettered. Accepted = acknowledged + spooled + "
    "dropped + dead_lettered.",
)
SPOOL_BYTES = Metric("logfwd_spool_bytes", "gauge", "bytes", ("stream",), "Bytes of batches waiting in the spool.")
SPOOL_BATCHES = Metric("logfwd_spool_batches", "gauge", "", ("stream",), "Batches waiting in the spool.")
SPOOL_RECORDS = Metric("logfwd_spool_records", "gauge", "", ("stream",), "Records waiting in the spool.")
UNACCOUNTED = Metric(
    "logfwd_unaccounted_records",
    "gauge",
    "",
    ("stream",),
    "Accepted - acknowledged - spooled - dropped - dead_lettered, over the spool's whole life: 0, or records are lost.",
)
SPOOL_OLDEST = Metric(
    "logfwd_spool_oldest_seconds",
    "gauge",
    "seconds",
    ("stream",),
    "Age of the oldest batch in the spool; one from before a restart counts from the restart.",
)
SOURCE_LAG = Metric(
    "logfwd_source_lag_bytes",
    "gauge",
    "bytes",
    ("stream",),
    "Bytes that the source could read and are not spooled yet.",
)
LINK_FAILURES = Metric(
    "logfwd_link_failures_total",
    "counter",
    "",
    ("stream", "reason"),
    "Links that could not be made or were lost, and batches that were refused, by reason.",
)
RUN_RESETS = Metric(
    "logfwd_run_resets_total",
    "counter",
    "",
    ("stream", "reason"),
    "Runs given up for a new one: batches in doubt may be stored twice.",
)
FORWARDER = (
    BATCH_DURATION,
    BATCH_STAGE,
    LINK_INFO,
    RECORDS,
    SPOOL_BYTES,
    SPOOL_BATCHES,
    SPOOL_RECORDS,
    UNACCOUNTED,
    SPOOL_OLDEST,
    SOURCE_LAG,
    LINK_FAILURES,
    RUN_RESETS,
)

OUTCOMES = "by outcome: stored, duplicate (recognised, not stored again), refused, uncertain."
BATCHES = Metric("logreceiver_batches_total", "counter", "", ("stream", "outcome"), f"Batches {OUTCOMES}")
RECEIVED = Metric("logreceiver_records_total", "counter", "", ("stream", "outcome"), f"Records {OUTCOMES}")
BYTES = Metric("logreceiver_bytes_total", "counter", "bytes", ("stream", "outcome"), f"Bytes of batches {OUTCOMES}")
SINK = _seconds("logreceiver_sink_seconds", ("stream", "sink"), "What the sink took for one batch.")
LINKS = Metric("logreceiver_links", "gauge", "", ("stream", "group"), "Links that are open now.")
REFUSED_LINKS = Metric(
    "logreceiver_refused_links_total", "counter", "", ("code",), "Links closed with an ERROR message, by its code."
)
CLONES = Metric(
    "logreceiver_clones_suspected_total",
    "counter",
    "",
    ("stream",),
    "Times that two boots of one forwarder took turns on a stream: its state directory may have been copied.",
)
LEDGER_DROPPED = Metric(
    "logreceiver_ledger_dropped_total",
    "counter",
    "",
    (),
    "Ledger records lost because the ledger could not be written; the batches they tell of are stored.",
)
RECEIVER = (BATCHES, RECEIVED, BYTES, SINK, LINKS, REFUSED_LINKS, CLONES, LEDGER_DROPPED)

CATALOGUE = (*SHARED, *FORWARDER, *RECEIVER)


class Handshake(Protocol):
    """What is observed of a handshake; `streams.security.openssl.Facts` has it."""

    @property
    def version(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def cipher(self) -> str: ...
    @property
    def handshake_seconds(self) -> float: ...
    @property
    def connect_seconds(self) -> float: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def certificate_expires(self) -> datetime.datetime | None: ...


class OpenLink(Protocol):
    """What is observed of a link."""

    @property
    def peer(self) -> str: ...
    @property
    def facts(self) -> Handshake: ...


class Waiting(Protocol):
    """A batch in the spool; `sealed_at` is None for one from before a restart."""

    @property
    def sealed_at(self) -> float | None: ...


class Books(Protocol):
    """Records of a stream since its spool was made."""

    @property
    def accepted(self) -> int: ...
    @property
    def acknowledged(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def dead_lettered(self) -> int: ...


class Waitlist(Protocol):
    """What is observed of a backlog, oldest batch first."""

    @property
    def stream(self) -> str: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def waiting_records(self) -> int: ...
    @property
    def totals(self) -> Books: ...
    @property
    def rows(self) -> Sequence[Waiting]: ...


class _Hooks(Collector):
    """Stands first in the registry, has no metrics, and lets gauges be set just before a scrape."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[], None]] = []

    def describe(self) -> Iterable[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        for hook in self.hooks:
            hook()
        return []


class _Part:
    """What both programs observe. A scrape runs on the event loop, so hooks may read what the loop owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # A timestamp beside every counter and histogram would double a scrape and help no one.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._families: list[Counter | Gauge | Histogram] = []
        self._by_stream: list[Counter | Gauge | Histogram] = []
        self._hooks = _Hooks()
        registry.register(self._hooks)
        ProcessCollector(registry=registry)
        self.handshake_seconds = WindowedHistogram(self._histogram(HANDSHAKE))
        self.connect_seconds = self._histogram(CONNECT)
        self.handshakes = self._counter(HANDSHAKES)
        self.handshake_bytes = self._histogram(TLS_BYTES)
        self.policy_violations = self._counter(VIOLATIONS)
        self.downgrades = self._counter(DOWNGRADES)
        self.certificate_expiry = self._gauge(CERTIFICATE_EXPIRY)

    def on_scrape(self, hook: Callable[[], None]) -> None:
        """Call this before every scrape: to set gauges from what is true then."""
        self._hooks.hooks.append(hook)

    def failed_handshake(self, reason: str, *, role: str, stream: str = "", mode: str = "") -> None:
        """Count a handshake that ended without a link. A receiver knows neither stream nor mode by then."""
        self.handshakes.labels(stream, mode, "", "", role, reason).inc()

    def own_certificate(self, expires: datetime.datetime) -> None:
        """The certificate that new links show ends then."""
        self.certificate_expiry.labels("", "own").set(expires.timestamp())

    def remove_stream(self, stream: str) -> None:
        """Forget a stream that is no more, so that its last values are not shown for ever."""
        for family in self._by_stream:
            family.remove_by_labels({"stream": stream})
        self.handshake_seconds.forget(stream)

    def _observe_handshake(self, facts: Handshake, stream: str, mode: str, role: str) -> None:
        self.handshake_seconds.labels(stream, mode, facts.group, facts.version, role).observe(facts.handshake_seconds)
        self.handshake_bytes.labels(stream, mode, role, "in").observe(facts.bytes_in)
        self.handshake_bytes.labels(stream, mode, role, "out").observe(facts.bytes_out)

    def _count_ok(self, facts: Handshake, stream: str, mode: str, role: str) -> None:
        self.handshakes.labels(stream, mode, facts.group, facts.version, role, "ok").inc()

    def _histogram(self, metric: Metric) -> Histogram:
        return self._keep(
            metric,
            Histogram(
                metric.name,
                metric.sentence,
                metric.labels,
                unit=metric.unit,
                buckets=metric.buckets,
                registry=self._registry,
            ),
        )

    def _counter(self, metric: Metric) -> Counter:
        return self._keep(
            metric, Counter(metric.name, metric.sentence, metric.labels, unit=metric.unit, registry=self._registry)
        )

    def _gauge(self, metric: Metric) -> Gauge:
        return self._keep(
            metric, Gauge(metric.name, metric.sentence, metric.labels, unit=metric.unit, registry=self._registry)
        )

    def _keep(self, metric: Metric, family: Family) -> Family:
        if "stream" in metric.labels:
            self._by_stream.append(family)
        return family


class ForwarderMetrics(_Part):
    """What `logfwd` observes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.batch_duration = WindowedHistogram(self._histogram(BATCH_DURATION))
        self.batch_stage = self._histogram(BATCH_STAGE)
        self.link_info = self._gauge(LINK_INFO)
        self.records = self._counter(RECORDS)
        self.spool_bytes = self._gauge(SPOOL_BYTES)
        self.spool_batches = self._gauge(SPOOL_BATCHES)
        self.spool_records = self._gauge(SPOOL_RECORDS)
        self.unaccounted = self._gauge(UNACCOUNTED)
        self.spool_oldest = self._gauge(SPOOL_OLDEST)
        self.source_lag = self._gauge(SOURCE_LAG)
        self.link_failures = self._counter(LINK_FAILURES)
        self.run_resets = self._counter(RUN_RESETS)
        self._started_at = _clock()

    def observe_handshake(self, facts: Handshake, *, stream: str, mode: str, role: str) -> None:
        """Observe a complete handshake. Whether it was ok is known at WELCOME: see `link_opened`."""
        self._observe_handshake(facts, stream, mode, role)
        self.connect_seconds.labels(stream).observe(facts.connect_seconds)
        if facts.certificate_expires is not None:
            self.certificate_expiry.labels(stream, "peer").set(facts.certificate_expires.timestamp())

    def link_opened(self, stream: str, mode: str, link: OpenLink) -> None:
        """The receiver said WELCOME: the handshake counts as ok, and this is the stream's link."""
        facts = link.facts
        self._count_ok(facts, stream, mode, "forwarder")
        self.link_closed(stream)
        self.link_info.labels(stream, link.peer, facts.group, facts.cipher, facts.version).set(1)

    def link_closed(self, stream: str) -> None:
        """The stream has no link now."""
        self.link_info.remove_by_labels({"stream": stream})

    def observe_backlog(self, backlog: Waitlist) -> None:
        """Set the spool's gauges from a backlog."""
        rows, stream, books, waiting = backlog.rows, backlog.stream, backlog.totals, backlog.waiting_records
        self.spool_bytes.labels(stream).set(backlog.waiting_bytes)
        self.spool_batches.labels(stream).set(len(rows))
        self.spool_records.labels(stream).set(waiting)
        gone = books.acknowledged + books.dropped + books.dead_lettered
        self.unaccounted.labels(stream).set(books.accepted - gone - waiting)
        age = 0.0
        if rows:
            sealed_at = rows[0].sealed_at
            age = _clock() - (self._started_at if sealed_at is None else sealed_at)
        self.spool_oldest.labels(stream).set(age)

    def handshake_summary(self, stream: str) -> Summary:
        """count, median, p95, p99 of the last handshakes, in seconds."""
        return self.handshake_seconds.summary(stream)

    def batch_duration_summary(self, stream: str) -> Summary:
        """count, median, p95, p99 of the last batch durations, in seconds."""
        return self.batch_duration.summary(stream)

    def remove_stream(self, stream: str) -> None:
        super().remove_stream(stream)
        self.batch_duration.forget(stream)


class ReceiverMetrics(_Part):
    """What `logreceiver` observes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.batches = self._counter(BATCHES)
        self.records = self._counter(RECEIVED)
        self.bytes = self._counter(BYTES)
        self.sink_seconds = WindowedHistogram(self._histogram(SINK))
        self.links = self._gauge(LINKS)
        self.refused_links = self._counter(REFUSED_LINKS)
        self.ledger_dropped = self._counter(LEDGER_DROPPED)
        self.clones_suspected = self._counter(CLONES)
        self._stream_labels: set[str] = set()

    def stream_label(self, stream: str) -> str:
        """The name that a stream is counted under: its own, for the first MAX_STREAM_LABELS of them."""
        if stream not in self._stream_labels:
            if len(self._stream_labels) >= MAX_STREAM_LABELS:
                return OTHER_STREAMS
            self._stream_labels.add(stream)
        return stream

    def observe_handshake(self, facts: Handshake, *, stream: str, mode: str, role: str) -> None:
        """Observe a complete handshake; the peer's certificate is verified by then, so it was ok."""
        self._observe_handshake(facts, stream, mode, role)
        self._count_ok(facts, stream, mode, role)


def _clock() -> float:
    """The clock that batches are sealed by: seconds that go on counting while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def markdown() -> str:
    """docs/metrics.md."""
    parts = [_INTRODUCTION]
    for title, metrics in (
        ("Both programs", SHARED),
        ("Forwarder (`logfwd`)", FORWARDER),
        ("Receiver (`logreceiver`)", RECEIVER),
    ):
        parts.append(f"\n## {title}\n\n| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n")
        for name, kind, unit, labels, sentence, _ in metrics:
            parts.append(f"| `{name}` | {kind} | {unit or '–'} | {', '.join(labels)} | {sentence} |\n")
    return "".join(parts)


_INTRODUCTION = f"""# Metrics

Printed from the catalogue by `python -m streams.telemetry.catalog`; a test compares the two. Both programs serve them
at `/metrics` of their admin address, as OpenMetrics where that is asked for, with the process's own (`process_*`).

Durations have buckets from 0.1 ms to 10 s, six a decade. `/api/v1/streams` ([api.md](api.md)) also gives median, 95th
and 99th percentile of the last {WINDOW} handshake and batch durations (forwarder) and sink times (receiver) of each
stream, from the values themselves.

The number of series grows with streams, never with links, forwarders or records. A forwarder's streams are
those of its configuration. A receiver counts the first {MAX_STREAM_LABELS} stream names that it lets in under
their own names, and all others under `{OTHER_STREAMS}`: with `streams = ["*"]` forwarders choose the names.
"""

if __name__ == "__main__":
    print(markdown(), end="")
