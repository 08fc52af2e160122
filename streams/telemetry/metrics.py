"""The metrics that both programs share, and how a program makes its own.

A `Metric` declares a family once: name, kind, unit, labels, one sentence. `Metrics` makes the families of a program and
is the only place that does. Names and units follow Prometheus: base units, `_total` on counters. Records are counted
only as sums over batches: nothing here is called for each record.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, Literal, NamedTuple, TypeVar

from prometheus_client.metrics import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from streams.security.endpoint import Facts
from streams.telemetry import logs
from streams.telemetry.window import WindowedHistogram

__all__ = ["CollectorRegistry", "Counter", "Metric", "Metrics", "duration"]

SECONDS = (
    *(base * step for base in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    10.0,
)
HANDSHAKE_BYTES = (512.0, 1024.0, 1536.0, 2048.0, 3072.0, 4096.0, 6144.0, 8192.0, 12288.0, 16384.0, 24576.0, 32768.0)

Family = TypeVar("Family", Counter, Gauge, Histogram)


class Metric(NamedTuple):
    """The declaration of a family. `unit` is empty where things are counted."""

    name: str
    kind: Literal["histogram", "counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    sentence: str
    buckets: tuple[float, ...] = ()


def duration(name: str, labels: tuple[str, ...], sentence: str) -> Metric:
    """A histogram of seconds, from 0.1 ms to 10 s."""
    return Metric(name, "histogram", "seconds", labels, sentence, tuple(round(bound, 6) for bound in SECONDS))


TLS = ("stream", "mode", "group", "version", "role")

HANDSHAKE = duration(
    "tls_handshake_seconds",
    TLS,
    "Handshake duration, without the TCP connect: ClientHello written (forwarder) or first byte read (receiver) until "
    "complete.",
)
CONNECT = duration("tcp_connect_seconds", ("stream",), "TCP connect, before the handshake begins.")
HANDSHAKES = Metric(
    "tls_handshakes_total",
    "counter",
    "",
    (*TLS, "result"),
    "Handshakes by result: ok, or the reason of the failure. A forwarder counts ok at WELCOME, when its certificate "
    "has been accepted. A receiver knows stream and mode from HELLO on; they are empty for links that end before it. "
    "Role kafka: the receiver's own handshakes with brokers (stream is empty), also those ended by an alert later.",
)
AUTHENTICATIONS = Metric(
    "tls_authentications_total",
    "counter",
    "",
    ("stream", "mode", "authentication", "role"),
    "Handshakes with result ok by how the peer was authenticated: the weakest of the algorithm that it proved its key "
    "with and those that its chain is signed with.",
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
    "Links closed before the first byte of data because TLS negotiated less than the stream's mode demands.",
)
DOWNGRADES = Metric(
    "tls_downgrades_total",
    "counter",
    "",
    ("stream", "reason"),
    "Handshakes in which a mode that allows a choice did not get its first choice; the reason is the negotiated group.",
)
CERTIFICATE_EXPIRY = Metric(
    "tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "seconds",
    ("stream", "owner"),
    "When a certificate expires, in seconds since the epoch: own, the program's certificate (stream is empty; the "
    "first to expire if it has several); delegated, its delegated credential, likewise, if it has one; peer, the "
    "receiver's certificate on the newest link of a forwarder's stream.",
)
DROPPED_LINES = Metric(
    "log_lines_dropped_total",
    "counter",
    "",
    (),
    "Log lines that could not be written to standard error: nobody reads it, it is full, or closed.",
)
TASK_FAILURES = Metric(
    "task_failures_total",
    "counter",
    "",
    ("task",),
    "Failures of tasks that have to run for as long as the program does; each was begun again.",
)
SHARED = (
    HANDSHAKE,
    CONNECT,
    HANDSHAKES,
    AUTHENTICATIONS,
    TLS_BYTES,
    VIOLATIONS,
    DOWNGRADES,
    CERTIFICATE_EXPIRY,
    DROPPED_LINES,
    TASK_FAILURES,
)


def reasons(program: str) -> Metric:
    """What shows that something is wrong with a program, in numbers; /readyz has the words."""
    sentence = "How many things are wrong, as /readyz names them: unready, which keep it from its work; and degraded."
    return Metric(f"{program}_health_reasons", "gauge", "", ("severity",), sentence)


def reloads(program: str) -> tuple[Metric, Metric, Metric]:
    """What shows a program's configuration and its reloads: success, time and the digest in use."""
    sentences = {
        "last_reload_successful": "1 if the last reload of the configuration was taken, or if there was none; 0 if it "
        "was refused.",
        "last_reload_timestamp_seconds": "When a configuration was last taken, at the start or by a reload, in seconds "
        "since the epoch.",
        "info": "1 for the configuration in use, by its digest: the same for equal ones, as `reload` prints it.",
    }
    units, labels = {"last_reload_timestamp_seconds": "seconds"}, {"info": ("digest",)}
    ok, when, info = (
        Metric(f"{program}_config_{name}", "gauge", units.get(name, ""), labels.get(name, ()), sentence)
        for name, sentence in sentences.items()
    )
    return ok, when, info


class _Hooks(Collector):
    """First in the registry and without metrics of its own: sets gauges just before a scrape."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[], None]] = []
        self._owner = threading.get_ident()

    def describe(self) -> Iterable[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        if threading.get_ident() == self._owner:
            self.call()
        return []

    def call(self) -> None:
        for hook in self.hooks:
            hook()


class Metrics:
    """The families of a program; each program's subclass adds its own.

    Hooks read the event loop's data, so a scrape on another thread calls `prepare` there first.
    """

    def __init__(self, registry: CollectorRegistry, reloads: tuple[Metric, Metric, Metric], reasons: Metric) -> None:
        # A creation timestamp for every counter and histogram would double the size of a scrape and help no one.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._digest = ""
        self._by_stream: list[Counter | Gauge | Histogram] = []
        self._windows: list[WindowedHistogram] = []
        self._hooks = _Hooks()
        registry.register(self._hooks)
        ProcessCollector(registry=registry)
        self.handshake_seconds = self._windowed(HANDSHAKE)
        self.connect_seconds = self._histogram(CONNECT)
        self.handshakes = self._counter(HANDSHAKES)
        self.authentications = self._counter(AUTHENTICATIONS)
        self.handshake_bytes = self._histogram(TLS_BYTES)
        self.policy_violations = self._counter(VIOLATIONS)
        self.downgrades = self._counter(DOWNGRADES)
        self.certificate_expiry = self._gauge(CERTIFICATE_EXPIRY)
        self._own_certificates: dict[str, dict[str, float]] = {"own": {}, "delegated": {}}
        self.dropped_lines, self._counted_lines = self._counter(DROPPED_LINES), 0
        self.on_scrape(self._count_dropped_lines)
        self._reload_ok, self._reloaded, self._config_info = map(self._gauge, reloads)
        self.reloaded(successful=True)
        self._last_reload: dict[str, Any] | None = None  # that was the start
        self._reasons = self._gauge(reasons)
        self._task_failures, self._counted_failures = self._counter(TASK_FAILURES), dict[str, int]()

    def _count_dropped_lines(self) -> None:
        dropped = logs.dropped_lines()
        self.dropped_lines.inc(dropped - self._counted_lines)
        self._counted_lines = dropped

    def count_task_failures(self, failures: Mapping[str, int]) -> None:
        """Failures since the program began, by task."""
        for task, count in failures.items():
            self._task_failures.labels(task).inc(count - self._counted_failures.get(task, 0))
        self._counted_failures = dict(failures)

    def on_scrape(self, hook: Callable[[], None]) -> None:
        """Call the hook before every scrape, to set gauges to their current values."""
        self._hooks.hooks.append(hook)

    def prepare(self) -> None:
        """Call the hooks, on the event loop."""
        self._hooks.call()

    def failed_handshake(self, reason: str, *, role: str, stream: str = "", mode: str = "") -> None:
        """Count a handshake that ended without a link. A receiver knows neither stream nor mode by then."""
        self.handshakes.labels(stream, mode, "", "", role, reason).inc()

    def own_certificate(
        self, expires: datetime.datetime, *, user: str, delegated: datetime.datetime | None = None
    ) -> None:
        """When what a user presents on new links expires; the first to expire is shown.

        `delegated`: the end of the credential that stands for the certificate's key, if there is one.
        """
        for owner, end in (("own", expires), ("delegated", delegated)):
            self._own_certificates[owner].pop(user, None)
            if end is not None:
                self._own_certificates[owner][user] = end.timestamp()
        self._show_own_certificates()

    def forget_certificates(self, users: Iterable[str]) -> None:
        """Leave out certificates that are no longer used; the others stay."""
        for user, ends in product(users, self._own_certificates.values()):
            ends.pop(user, None)
        self._show_own_certificates()

    def reloaded(self, *, successful: bool) -> None:
        """A configuration was taken, or refused."""
        self._last_reload = {"outcome": "taken" if successful else "refused", "at": round(time.time(), 3)}
        self._reload_ok.set(successful)
        if successful:
            self._reloaded.set(time.time())

    def show_reasons(self, unready: int, degraded: int) -> None:
        """How many reasons /readyz has."""
        self._reasons.labels("unready").set(unready)
        self._reasons.labels("degraded").set(degraded)

    def config_is(self, digest: str) -> None:
        """The configuration in use has this digest."""
        self._digest = digest
        self._config_info.clear()
        self._config_info.labels(digest).set(1)

    def config(self) -> dict[str, Any]:
        """Which configuration is in use, and what came of the last reload."""
        return {"digest": self._digest, "last_reload": self._last_reload}

    def certificates(self) -> list[dict[str, Any]]:
        """What the program presents on new links, the first to expire first."""
        found = [
            {"section": user, "owner": owner, "expires": end}
            for owner, ends in self._own_certificates.items()
            for user, end in ends.items()
        ]
        return sorted(found, key=lambda each: float(each["expires"]))

    def _show_own_certificates(self) -> None:
        for owner, ends in self._own_certificates.items():
            if ends:
                self.certificate_expiry.labels("", owner).set(min(ends.values()))
            elif owner == "delegated":
                self.certificate_expiry.remove_by_labels({"owner": owner})

    def remove_stream(self, stream: str) -> None:
        """Forget a stream that no longer exists, so that its last values are not exposed forever."""
        for family in self._by_stream:
            family.remove_by_labels({"stream": stream})
        for window in self._windows:
            window.forget(stream)

    def _observe_handshake(self, facts: Facts, stream: str, mode: str, role: str) -> None:
        self.handshake_seconds.labels(stream, mode, facts.group, facts.version, role).observe(facts.handshake_seconds)
        self.handshake_bytes.labels(stream, mode, role, "in").observe(facts.bytes_in)
        self.handshake_bytes.labels(stream, mode, role, "out").observe(facts.bytes_out)

    def _count_ok(self, facts: Facts, stream: str, mode: str, role: str) -> None:
        self.handshakes.labels(stream, mode, facts.group, facts.version, role, "ok").inc()
        self.authentications.labels(stream, mode, facts.authentication, role).inc()

    # -- making families -----------------------------------------------------------------------------------------

    def _windowed(self, metric: Metric) -> WindowedHistogram:
        windowed = WindowedHistogram(self._histogram(metric))
        self._windows.append(windowed)
        return windowed

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
