"""The forwarder's metrics: links, the spool and streams that come and go."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from prometheus_client import generate_latest

from logfwd import metrics as forwarder_metrics
from logfwd.metrics import ForwarderMetrics
from logfwd.spool.backlog import Backlog
from logfwd.spool.beyond import Beyond
from logfwd.spool.blobs import Blobs
from logfwd.spool.rows import Row, Totals
from streams.telemetry.metrics import CollectorRegistry
from tests.support.facts import facts


class Exposed(NamedTuple):
    """A forwarder's metrics and the registry that exposes them."""

    metrics: ForwarderMetrics
    registry: CollectorRegistry


@pytest.fixture
def exposed() -> Exposed:
    registry = CollectorRegistry()
    return Exposed(ForwarderMetrics(registry), registry)


def backlog(stream: str = "a", sealed_at: tuple[float | None, ...] = (), *, totals: Totals | None = None) -> Backlog:
    """Batches of one record and ten bytes each, by the times at which they were sealed."""
    rows = [Row(number, 1, number, 1, 10, sealed_at=at) for number, at in enumerate(sealed_at)]
    found = Backlog(stream, Blobs(), 1000, drops_oldest=False, totals=totals or Totals())
    found.adopt(rows, Beyond())
    return found


def test_a_handshake_counts_as_ok_only_at_welcome(exposed: Exposed) -> None:
    metrics, registry = exposed
    done = facts(handshake_seconds=0.002, connect_seconds=0.0005, bytes_out=2200)
    labels = {"stream": "a", "mode": "hybrid", "group": done.group, "version": done.version, "role": "forwarder"}
    metrics.observe_handshake(done, stream="a", mode="hybrid", role="forwarder")
    assert registry.get_sample_value("tls_handshakes_total", {**labels, "result": "ok"}) is None
    metrics.link_opened("a", "hybrid", receiver="one:1", facts=done)
    assert registry.get_sample_value("tls_handshakes_total", {**labels, "result": "ok"}) == 1
    assert registry.get_sample_value("tls_handshake_seconds_count", labels) == 1
    assert registry.get_sample_value("tcp_connect_seconds_sum", {"stream": "a"}) == 0.0005
    size = {"stream": "a", "mode": "hybrid", "role": "forwarder", "direction": "out"}
    assert registry.get_sample_value("tls_handshake_bytes_sum", size) == 2200


def test_link_info_has_one_line_per_stream_that_has_a_link(exposed: Exposed) -> None:
    metrics, registry = exposed
    metrics.link_opened("a", "hybrid", receiver="one:1", facts=facts())
    metrics.link_opened("b", "hybrid", receiver="one:1", facts=facts())
    metrics.link_opened("a", "hybrid", receiver="two:2", facts=facts())
    assert receivers(registry) == {("a", "two:2"), ("b", "one:1")}
    metrics.link_closed("a")
    assert receivers(registry) == {("b", "one:1")}


def receivers(registry: CollectorRegistry) -> set[tuple[str, str]]:
    return {
        (sample.labels["stream"], sample.labels["receiver"])
        for family in registry.collect()
        if family.name == "logfwd_link_info"
        for sample in family.samples
    }


def test_gauges_are_set_just_before_a_scrape(exposed: Exposed) -> None:
    metrics, registry = exposed
    lags = iter([5, 7])
    metrics.on_scrape(lambda: metrics.source_lag.labels("a").set(next(lags)))
    assert b'logfwd_source_lag_bytes{stream="a"} 5.0' in generate_latest(registry)
    assert b'logfwd_source_lag_bytes{stream="a"} 7.0' in generate_latest(registry)


def test_a_backlog_shows_its_size_and_the_age_of_its_oldest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_metrics, "clock", lambda: 1000.0)
    registry = CollectorRegistry()
    metrics = ForwarderMetrics(registry)
    monkeypatch.setattr(forwarder_metrics, "clock", lambda: 1030.0)

    def gauges(*sealed_at: float | None) -> list[float | None]:
        metrics.observe_backlog(backlog("a", sealed_at))
        names = ("logfwd_spool_bytes", "logfwd_spool_batches", "logfwd_spool_oldest_seconds")
        return [registry.get_sample_value(name, {"stream": "a"}) for name in names]

    assert gauges() == [0, 0, 0]
    assert gauges(1020.0, 1029.0) == [20, 2, 10]
    assert gauges(None, 1029.0) == [20, 2, 30], "a batch from before the restart is as old as the restart"


@pytest.mark.parametrize(("acknowledged", "unaccounted"), [(4, 0), (3, 1), (5, -1)])
def test_lost_and_doubly_counted_records_are_exposed(exposed: Exposed, acknowledged: int, unaccounted: int) -> None:
    metrics, registry = exposed
    totals = Totals(accepted=10, acknowledged=acknowledged, dropped=2, dead_lettered=1)
    metrics.observe_backlog(backlog("a", (1.0, 2.0, 3.0), totals=totals))
    assert registry.get_sample_value("logfwd_unaccounted_records", {"stream": "a"}) == unaccounted
    assert registry.get_sample_value("logfwd_spool_records", {"stream": "a"}) == 3


def test_a_removed_stream_leaves_no_series(exposed: Exposed) -> None:
    metrics, registry = exposed
    for stream in ("gone", "stays"):
        metrics.observe_handshake(facts(), stream=stream, mode="hybrid", role="forwarder")
        metrics.link_opened(stream, "hybrid", receiver="one:1", facts=facts())
        metrics.batch_duration.labels(stream, "hybrid").observe(0.01)
        metrics.records.labels(stream, "accepted").inc(3)
        metrics.observe_backlog(backlog(stream))
    metrics.remove_stream("gone")
    text = generate_latest(registry).decode()
    assert 'stream="gone"' not in text
    assert 'logfwd_records_total{state="accepted",stream="stays"} 3.0' in text
    assert metrics.batch_duration.summary("gone")["count"] == 0
    assert metrics.handshake_seconds.summary("gone")["count"] == 0
    assert metrics.handshake_seconds.summary("stays")["count"] == 1


def test_a_summary_has_observed_values(exposed: Exposed) -> None:
    metrics, _ = exposed
    for value in range(1, 101):
        metrics.batch_duration.labels("a", "hybrid").observe(value / 1000)
    observed, none = {"median": 0.05, "p95": 0.095, "p99": 0.099}, {"median": None, "p95": None, "p99": None}
    recent = {"seconds": 300, "count": 100, **observed}
    assert dict(metrics.batch_duration.summary("a")) == {"count": 100, **observed, "recent": recent}
    assert dict(metrics.batch_duration.summary("b")) == {"count": 0, **none, "recent": {**recent, "count": 0, **none}}
