"""The catalogue: what is declared, is documented, is exposed, and nothing else is."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from streams.telemetry import catalog
from streams.telemetry.catalog import (
    CATALOGUE,
    FORWARDER,
    MAX_STREAM_LABELS,
    OTHER_STREAMS,
    RECEIVER,
    SHARED,
    CollectorRegistry,
    ForwarderMetrics,
    ReceiverMetrics,
)
from streams.telemetry.window import WINDOW, Window

DOCS = Path(__file__).parent.parent.parent.parent / "docs"


@dataclass
class Facts:
    version: str = "TLSv1.3"
    group: str = "X25519MLKEM768"
    cipher: str = "TLS_AES_256_GCM_SHA384"
    handshake_seconds: float = 0.002
    connect_seconds: float = 0.0005
    bytes_in: int = 2500
    bytes_out: int = 2200
    certificate_expires: datetime.datetime | None = None


@dataclass
class Link:
    peer: str = "127.0.0.1:7443"
    facts: Facts = field(default_factory=Facts)


@dataclass
class Row:
    sealed_at: float | None


@dataclass
class Books:
    accepted: int = 0
    acknowledged: int = 0
    dropped: int = 0
    dead_lettered: int = 0


@dataclass
class Backlog:
    stream: str
    waiting_bytes: int
    rows: Sequence[Row]
    waiting_records: int = 0
    totals: Books = field(default_factory=Books)


def forwarder() -> tuple[ForwarderMetrics, CollectorRegistry]:
    registry = CollectorRegistry()
    return ForwarderMetrics(registry), registry


def exposed(registry: CollectorRegistry) -> dict[str, tuple[str, str, str]]:
    """Name → kind, unit, sentence of every family of ours."""
    text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.unit, family.documentation)
        for family in families
        if not family.name.startswith("process_")
    }


@pytest.mark.parametrize(
    ("make", "part"), [(ForwarderMetrics, (*SHARED, *FORWARDER)), (ReceiverMetrics, (*SHARED, *RECEIVER))]
)
def test_a_program_exposes_its_part_of_the_catalogue_and_nothing_else(
    make: Callable[[CollectorRegistry], object], part: tuple[catalog.Metric, ...]
) -> None:
    registry = CollectorRegistry()
    make(registry)
    assert exposed(registry) == {metric.name: (metric.kind, metric.unit, metric.sentence) for metric in part}


def test_docs_are_printed_from_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert (DOCS / "metrics.md").read_text() == catalog.markdown(), (
        "run: python -m streams.telemetry.catalog > docs/metrics.md"
    )


def test_names_follow_the_rules_of_prometheus() -> None:
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not metric.unit or metric.unit in metric.name.removesuffix("_total").split("_")[-1], metric.name
        assert metric.sentence.endswith("."), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_buckets_of_durations_resolve_a_tenth_of_a_millisecond_to_ten_seconds() -> None:
    buckets = catalog.BATCH_DURATION.buckets
    assert (buckets[0], buckets[-1]) == (0.0001, 10.0)
    assert all(1 < after / before <= 1.7 for before, after in pairwise(buckets))


def test_a_handshake_counts_as_ok_for_a_forwarder_only_when_it_is_welcome() -> None:
    metrics, registry = forwarder()
    facts = Facts()
    labels = {"stream": "a", "mode": "hybrid", "group": facts.group, "version": facts.version, "role": "forwarder"}
    metrics.observe_handshake(facts, stream="a", mode="hybrid", role="forwarder")
    assert registry.get_sample_value("tls_handshakes_total", {**labels, "result": "ok"}) is None
    metrics.link_opened("a", "hybrid", Link())
    assert registry.get_sample_value("tls_handshakes_total", {**labels, "result": "ok"}) == 1
    assert registry.get_sample_value("tls_handshake_seconds_count", labels) == 1
    assert registry.get_sample_value("tcp_connect_seconds_sum", {"stream": "a"}) == 0.0005
    size = {"stream": "a", "mode": "hybrid", "role": "forwarder", "direction": "out"}
    assert registry.get_sample_value("tls_handshake_bytes_sum", size) == 2200


def test_a_receiver_counts_a_handshake_when_it_is_complete_and_a_failed_one_by_its_reason() -> None:
    registry = CollectorRegistry()
    metrics = ReceiverMetrics(registry)
    metrics.observe_handshake(Facts(), stream="", mode="", role="receiver")
    metrics.failed_handshake("no_common_group", role="receiver")
    samples = {
        sample.labels["result"]: sample.value
        for family in registry.collect()
        if family.name == "tls_handshakes"
        for sample in family.samples
    }
    assert samples == {"ok": 1, "no_common_group": 1}


def test_only_the_link_of_now_is_shown() -> None:
    metrics, registry = forwarder()
    metrics.link_opened("a", "hybrid", Link("one:1"))
    metrics.link_opened("b", "hybrid", Link("one:1"))
    metrics.link_opened("a", "hybrid", Link("two:2"))
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


def test_gauges_are_set_just_before_a_scrape() -> None:
    metrics, registry = forwarder()
    lags = iter([5, 7])
    metrics.on_scrape(lambda: metrics.source_lag.labels("a").set(next(lags)))
    assert b'logfwd_source_lag_bytes{stream="a"} 5.0' in generate_latest(registry)
    assert b'logfwd_source_lag_bytes{stream="a"} 7.0' in generate_latest(registry)


def test_a_backlog_shows_its_size_and_the_age_of_its_oldest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_clock", lambda: 1000.0)
    metrics, registry = forwarder()
    monkeypatch.setattr(catalog, "_clock", lambda: 1030.0)

    def gauges(rows: list[Row]) -> list[float | None]:
        metrics.observe_backlog(Backlog("a", 10 * len(rows), deque(rows)))
        names = ("logfwd_spool_bytes", "logfwd_spool_batches", "logfwd_spool_oldest_seconds")
        return [registry.get_sample_value(name, {"stream": "a"}) for name in names]

    assert gauges([]) == [0, 0, 0]
    assert gauges([Row(1020.0), Row(1029.0)]) == [20, 2, 10]
    assert gauges([Row(None), Row(1029.0)]) == [20, 2, 30], "one from before the restart counts from it"


@pytest.mark.parametrize(("acknowledged", "unaccounted"), [(4, 0), (3, 1), (5, -1)])
def test_records_that_are_nowhere_or_twice_in_the_books_are_told(acknowledged: int, unaccounted: int) -> None:
    metrics, registry = forwarder()
    metrics.observe_backlog(Backlog("a", 0, [], waiting_records=3, totals=Books(10, acknowledged, 2, 1)))
    assert registry.get_sample_value("logfwd_unaccounted_records", {"stream": "a"}) == unaccounted
    assert registry.get_sample_value("logfwd_spool_records", {"stream": "a"}) == 3


def test_a_stream_that_is_gone_leaves_no_series() -> None:
    metrics, registry = forwarder()
    for stream in ("gone", "stays"):
        metrics.observe_handshake(Facts(), stream=stream, mode="hybrid", role="forwarder")
        metrics.link_opened(stream, "hybrid", Link())
        metrics.batch_duration.labels(stream, "hybrid").observe(0.01)
        metrics.records.labels(stream, "accepted").inc(3)
        metrics.observe_backlog(Backlog(stream, 0, []))
    metrics.remove_stream("gone")
    text = generate_latest(registry).decode()
    assert 'stream="gone"' not in text
    assert 'logfwd_records_total{state="accepted",stream="stays"} 3.0' in text
    assert metrics.batch_duration_summary("gone")["count"] == 0
    assert metrics.handshake_summary("gone")["count"] == 0
    assert metrics.handshake_summary("stays")["count"] == 1


# -- windows -----------------------------------------------------------------------------------------------------


def test_a_summary_holds_values_that_were_observed() -> None:
    metrics, _ = forwarder()
    for value in range(1, 101):
        metrics.batch_duration.labels("a", "hybrid").observe(value / 1000)
    assert metrics.batch_duration_summary("a") == {"count": 100, "median": 0.05, "p95": 0.095, "p99": 0.099}
    assert metrics.batch_duration_summary("b") == {"count": 0, "median": None, "p95": None, "p99": None}


def test_a_window_keeps_the_last_values_and_no_more() -> None:
    window = Window()
    for value in range(WINDOW + 500):
        window.add(float(value))
    kept: Any = window._values
    assert sorted(kept) == [float(value) for value in range(500, WINDOW + 500)]
    assert window.summary()["count"] == WINDOW + 500
    assert window.since(WINDOW + 497) == [WINDOW + 497.0, WINDOW + 498.0, WINDOW + 499.0]
    assert window.since(0) == [float(value) for value in range(500, WINDOW + 500)]


def test_one_value_is_every_percentile() -> None:
    window = Window()
    window.add(2.0)
    assert window.summary() == {"count": 1, "median": 2.0, "p95": 2.0, "p99": 2.0}


# -- bounds ------------------------------------------------------------------------------------------------------


def test_a_receiver_counts_streams_beyond_the_bound_under_one_name() -> None:
    registry = CollectorRegistry()
    metrics = ReceiverMetrics(registry)
    for number in range(3 * MAX_STREAM_LABELS):
        metrics.batches.labels(metrics.stream_label(f"stream-{number}"), "stored").inc()
    metrics.batches.labels(metrics.stream_label("stream-0"), "stored").inc()
    text = generate_latest(registry).decode()
    assert text.count("logreceiver_batches_total{") == MAX_STREAM_LABELS + 1
    assert 'logreceiver_batches_total{outcome="stored",stream="stream-0"} 2.0' in text
    others = {"stream": OTHER_STREAMS, "outcome": "stored"}
    assert registry.get_sample_value("logreceiver_batches_total", others) == 2 * MAX_STREAM_LABELS
