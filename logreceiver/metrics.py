"""The receiver's metrics: every family, and the bound on the number of streams in them."""

from __future__ import annotations

import datetime

from logreceiver.posture import SinkConnection, SinkConnections
from streams.security.endpoint import Facts
from streams.security.modes import Mode
from streams.telemetry.metrics import CollectorRegistry, Metric, Metrics, duration, reasons, reloads

MAX_STREAM_LABELS = 200
OTHER_STREAMS = "(other)"
"""The name that further streams are counted under: a rule may allow any name, and series are never removed."""

OUTCOMES = "by outcome: stored, duplicate (recognised, not stored again), refused, uncertain."
BATCHES = Metric("logreceiver_batches_total", "counter", "", ("stream", "outcome"), f"Batches {OUTCOMES}")
RECEIVED = Metric("logreceiver_records_total", "counter", "", ("stream", "outcome"), f"Records {OUTCOMES}")
BYTES = Metric("logreceiver_bytes_total", "counter", "bytes", ("stream", "outcome"), f"Bytes of batches {OUTCOMES}")
SINK = duration("logreceiver_sink_seconds", ("stream", "sink"), "Time that the sink took to store one batch.")
LINKS = Metric("logreceiver_links", "gauge", "", ("stream", "group"), "Links open now.")
REFUSED_LINKS = Metric(
    "logreceiver_refused_links_total", "counter", "", ("code",), "Links closed with an ERROR message, by its code."
)
CLONES = Metric(
    "logreceiver_clones_suspected_total",
    "counter",
    "",
    ("stream",),
    "How often two boots of one forwarder took turns on a stream: its state directory may have been copied.",
)
PROBES = Metric(
    "logreceiver_probes_total",
    "counter",
    "",
    (),
    "Connections that ended before the peer had said a hello of TLS, as health checks by TCP do, and those that a "
    "proxy made on its own account. They are no failed handshakes.",
)
LEDGER_DROPPED = Metric(
    "logreceiver_ledger_dropped_total",
    "counter",
    "",
    (),
    "Ledger records lost because the ledger could not be written; the batches themselves are stored.",
)
RELOADS = reloads("logreceiver")
REASONS = reasons("logreceiver")
CRL = Metric(
    "logreceiver_crl_next_update_timestamp_seconds",
    "gauge",
    "seconds",
    (),
    "When the first of the revocation lists has to be renewed, in seconds since the epoch; 0 without lists. A list "
    "that is past it stays in force.",
)
RECEIVER = (
    BATCHES,
    RECEIVED,
    BYTES,
    SINK,
    LINKS,
    REFUSED_LINKS,
    PROBES,
    CLONES,
    LEDGER_DROPPED,
    *RELOADS,
    REASONS,
    CRL,
)


SINK_ROLE = "kafka"
"""Stands in `role` for the receiver's side of connections to Kafka."""


class ReceiverMetrics(Metrics):
    """The families of `logreceiver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, RELOADS, REASONS)
        self.batches = self._counter(BATCHES)
        self.records = self._counter(RECEIVED)
        self.bytes = self._counter(BYTES)
        self.sink_seconds = self._windowed(SINK)
        self.links = self._gauge(LINKS)
        self.refused_links = self._counter(REFUSED_LINKS)
        self.probes = self._counter(PROBES)
        self.ledger_dropped = self._counter(LEDGER_DROPPED)
        self.clones_suspected = self._counter(CLONES)
        self._crl = self._gauge(CRL)
        self._stream_labels: set[str] = set()
        self.sink_connections = SinkConnections()

    def complete(self, mode: Mode, facts: Facts) -> None:
        """A handshake with a broker of the sink."""
        self.observe_handshake(facts, stream="", mode=mode.name, role=SINK_ROLE)

    def failed(self, mode: Mode, reason: str) -> None:
        """A handshake with a broker failed, or a broker ended a connection by an alert."""
        self.failed_handshake(reason, role=SINK_ROLE, mode=mode.name)

    def opened(self, facts: Facts, opened_at: float) -> SinkConnection:
        """A connection to a broker was made, with TLS or without."""
        return self.sink_connections.opened(facts, opened_at)

    def closed(self, connection: SinkConnection) -> None:
        """It was closed, by whoever."""
        self.sink_connections.closed(connection)

    def revocation_lists(self, next_update: datetime.datetime | None) -> None:
        """The lists in use were read; None if there are none."""
        self._crl.set(next_update.timestamp() if next_update is not None else 0)

    def stream_label(self, stream: str) -> str:
        """The name that a stream is counted under: its own, if it is one of the first MAX_STREAM_LABELS."""
        if stream not in self._stream_labels:
            if len(self._stream_labels) >= MAX_STREAM_LABELS:
                return OTHER_STREAMS
            self._stream_labels.add(stream)
        return stream

    def observe_handshake(self, facts: Facts, *, stream: str, mode: str, role: str) -> None:
        """Observe a complete handshake; it counts as ok, because the peer's certificate has been verified."""
        self._observe_handshake(facts, stream, mode, role)
        self._count_ok(facts, stream, mode, role)
