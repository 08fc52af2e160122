"""The forwarder's metrics: every family, and what is observed of links, batches and the spool."""

from __future__ import annotations

from logfwd.clocks import clock
from logfwd.spool.backlog import Backlog
from streams.security.endpoint import Facts
from streams.telemetry.metrics import CollectorRegistry, Metric, Metrics, duration, reasons, reloads

BATCH_DURATION = duration(
    "logfwd_batch_duration_seconds", ("stream", "mode"), "Batch duration: sealed until acknowledged."
)
BATCH_STAGE = duration(
    "logfwd_batch_stage_seconds",
    ("stream", "stage"),
    "Batch duration by stage: seal, spool, queue, wire (sent until acknowledged, without the receiver's own time), "
    "sink.",
)
LINK_INFO = Metric(
    "logfwd_link_info",
    "gauge",
    "",
    ("stream", "receiver", "group", "cipher", "version"),
    "1 for the stream's current link.",
)
RECORDS = Metric(
    "logfwd_records_total",
    "counter",
    "",
    ("stream", "state"),
    "Records by state: accepted, invalid, acknowledged, dropped, dead_lettered; of formats other than json also "
    "undecodable (with U+FFFD in place of bytes that are not of the encoding) and cut (lines in several parts); also "
    "too_long (cuts of lines over 16 MiB, which become several lines). "
    "Accepted = acknowledged + spooled + dropped + dead_lettered.",
)
SPOOL_BYTES = Metric("logfwd_spool_bytes", "gauge", "bytes", ("stream",), "Bytes of batches waiting in the spool.")
SPOOL_BATCHES = Metric("logfwd_spool_batches", "gauge", "", ("stream",), "Batches waiting in the spool.")
SPOOL_RECORDS = Metric("logfwd_spool_records", "gauge", "", ("stream",), "Records waiting in the spool.")
DEAD_LETTER_BYTES = Metric(
    "logfwd_dead_letter_bytes",
    "gauge",
    "bytes",
    ("stream",),
    "Bytes of dead letters in the spool, each with 300 for itself: what counts in max_dead_letter_bytes.",
)
UNACCOUNTED = Metric(
    "logfwd_unaccounted_records",
    "gauge",
    "",
    ("stream",),
    "Accepted - acknowledged - spooled - dropped - dead_lettered since the spool was created. It must be 0.",
)
SPOOL_OLDEST = Metric(
    "logfwd_spool_oldest_seconds",
    "gauge",
    "seconds",
    ("stream",),
    "Age of the oldest batch in the spool; for a batch from before a restart, the time since the restart.",
)
SOURCE_LAG = Metric(
    "logfwd_source_lag_bytes",
    "gauge",
    "bytes",
    ("stream",),
    "Bytes available to the source that are not spooled yet.",
)
LINK_FAILURES = Metric(
    "logfwd_link_failures_total",
    "counter",
    "",
    ("stream", "reason"),
    "Links that failed to open or were lost, and batches that were refused, by reason.",
)
RUN_RESETS = Metric(
    "logfwd_run_resets_total",
    "counter",
    "",
    ("stream", "reason"),
    "Runs replaced by a new one: batches whose outcome was unknown may be stored twice.",
)
HTTP_REQUESTS = Metric(
    "logfwd_http_requests_total",
    "counter",
    "",
    ("stream", "code"),
    "Requests of HTTP clients by status code; none: the outcome was unknown and the connection was closed.",
)
EVICTED_KEYS = Metric(
    "logfwd_evicted_keys_total",
    "counter",
    "",
    ("stream",),
    "Idempotency keys that were deleted before they expired: a repeated request may be stored twice.",
)
DROPPED_MESSAGES = Metric(
    "logfwd_syslog_dropped_messages_total",
    "counter",
    "",
    ("stream", "reason"),
    "Syslog messages that were sent and not kept: no_room in the stream's buffer, receive_queue (UDP, dropped by the "
    "kernel), too_long.",
)
ENDED_CONNECTIONS = Metric(
    "logfwd_syslog_ended_connections_total",
    "counter",
    "",
    ("stream", "reason"),
    "Syslog connections that were refused or ended: first_byte, octet_count, too_long, half_message, idle, "
    "too_many_connections, handshake, weaker_than_mode, identity.",
)
FILES = Metric(
    "logfwd_files_total",
    "counter",
    "",
    ("stream", "event"),
    "Files of a source by what became of them: read_again (from the start, perhaps repeated), gone_unread, not_found "
    "(gone since the forwarder was stopped), recognised (by content alone), edited (before the position), forgotten, "
    "let_go (deleted, and perhaps still written to), compressed (not read), damaged (a compressed one), "
    "unreadable.",
)
FILE_BYTES = Metric(
    "logfwd_file_bytes_total",
    "counter",
    "bytes",
    ("stream", "event"),
    "Bytes by what became of their file: possible repeats of read_again, lost ones of gone_unread and let_go; of "
    "not_found, recognised and edited those before the position.",
)
RELOADS = reloads("logfwd")
REASONS = reasons("logfwd")
FORWARDER = (
    BATCH_DURATION,
    BATCH_STAGE,
    LINK_INFO,
    RECORDS,
    SPOOL_BYTES,
    SPOOL_BATCHES,
    SPOOL_RECORDS,
    DEAD_LETTER_BYTES,
    UNACCOUNTED,
    SPOOL_OLDEST,
    SOURCE_LAG,
    LINK_FAILURES,
    RUN_RESETS,
    HTTP_REQUESTS,
    EVICTED_KEYS,
    DROPPED_MESSAGES,
    ENDED_CONNECTIONS,
    FILES,
    FILE_BYTES,
    *RELOADS,
    REASONS,
)


class ForwarderMetrics(Metrics):
    """The families of `logfwd`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, RELOADS, REASONS)
        self.batch_duration = self._windowed(BATCH_DURATION)
        self.batch_stage = self._histogram(BATCH_STAGE)
        self.link_info = self._gauge(LINK_INFO)
        self.records = self._counter(RECORDS)
        self.spool_bytes = self._gauge(SPOOL_BYTES)
        self.spool_batches = self._gauge(SPOOL_BATCHES)
        self.spool_records = self._gauge(SPOOL_RECORDS)
        self.dead_letter_bytes = self._gauge(DEAD_LETTER_BYTES)
        self.unaccounted = self._gauge(UNACCOUNTED)
        self.spool_oldest = self._gauge(SPOOL_OLDEST)
        self.source_lag = self._gauge(SOURCE_LAG)
        self.link_failures = self._counter(LINK_FAILURES)
        self.run_resets = self._counter(RUN_RESETS)
        self.http_requests = self._counter(HTTP_REQUESTS)
        self.evicted_keys = self._counter(EVICTED_KEYS)
        self.dropped_messages = self._counter(DROPPED_MESSAGES)
        self.ended_connections = self._counter(ENDED_CONNECTIONS)
        self.files = self._counter(FILES)
        self.file_bytes = self._counter(FILE_BYTES)
        self._started_at = clock()

    def observe_handshake(self, facts: Facts, *, stream: str, mode: str, role: str) -> None:
        """Observe a complete handshake. It counts as ok only at WELCOME: see `link_opened`."""
        self._observe_handshake(facts, stream, mode, role)
        self.connect_seconds.labels(stream).observe(facts.connect_seconds)
        if facts.certificate_expires is not None:
            self.certificate_expiry.labels(stream, "peer").set(facts.certificate_expires.timestamp())

    def link_opened(self, stream: str, mode: str, *, receiver: str, facts: Facts) -> None:
        """The receiver said WELCOME: the handshake counts as ok, and this is the stream's current link."""
        self._count_ok(facts, stream, mode, "forwarder")
        self.link_closed(stream)
        self.link_info.labels(stream, receiver, facts.group, facts.cipher, facts.version).set(1)

    def count_http_request(self, stream: str, code: str) -> None:
        """A client was answered; `stream` is empty if it named none that is served."""
        self.http_requests.labels(stream, code).inc()

    def count_dropped_messages(self, stream: str, reason: str, messages: int) -> None:
        """Syslog messages are lost before they are records."""
        self.dropped_messages.labels(stream, reason).inc(messages)

    def count_ended_connection(self, stream: str, reason: str) -> None:
        """A syslog client was refused, or its connection ended."""
        self.ended_connections.labels(stream, reason).inc()

    def link_closed(self, stream: str) -> None:
        """The stream has no link any more."""
        self.link_info.remove_by_labels({"stream": stream})

    def count_records(self, stream: str, state: str, records: int) -> None:
        """Count records of a stream by a state that its source knows."""
        self.records.labels(stream, state).inc(records)

    def count_files(self, stream: str, event: str, files: int) -> None:
        """Count files of a stream by what became of them."""
        self.files.labels(stream, event).inc(files)

    def count_file_bytes(self, stream: str, event: str, size: int) -> None:
        """Count bytes of files by what became of their file."""
        self.file_bytes.labels(stream, event).inc(size)

    def observe_backlog(self, backlog: Backlog) -> None:
        """Set the spool's gauges from a backlog."""
        stream, totals, waiting = backlog.stream, backlog.totals, backlog.waiting_records
        self.spool_bytes.labels(stream).set(backlog.waiting_bytes)
        self.spool_batches.labels(stream).set(backlog.waiting_batches)
        self.spool_records.labels(stream).set(waiting)
        self.dead_letter_bytes.labels(stream).set(backlog.dead_letters.byte_count)
        gone = totals.acknowledged + totals.dropped + totals.dead_lettered
        self.unaccounted.labels(stream).set(totals.accepted - gone - waiting)
        self.spool_oldest.labels(stream).set(self.oldest_seconds(backlog))

    def oldest_seconds(self, backlog: Backlog) -> float:
        """Age of a backlog's oldest batch; for a batch from before a restart, the time since the restart."""
        if not backlog.waiting_batches:
            return 0.0
        sealed_at = backlog.oldest_sealed_at
        return clock() - (self._started_at if sealed_at is None else sealed_at)
