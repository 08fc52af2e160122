"""The receiver's metrics: handshakes, and the bound on the number of streams."""

from __future__ import annotations

from prometheus_client import generate_latest

from logreceiver.metrics import MAX_STREAM_LABELS, OTHER_STREAMS, ReceiverMetrics
from streams.telemetry.metrics import CollectorRegistry
from tests.support.facts import facts


def test_a_handshake_counts_when_it_is_complete_and_a_failed_one_by_its_reason() -> None:
    registry = CollectorRegistry()
    metrics = ReceiverMetrics(registry)
    metrics.observe_handshake(facts(), stream="", mode="", role="receiver")
    metrics.failed_handshake("no_common_group", role="receiver")
    samples = {
        sample.labels["result"]: sample.value
        for family in registry.collect()
        if family.name == "tls_handshakes"
        for sample in family.samples
    }
    assert samples == {"ok": 1, "no_common_group": 1}


def test_streams_beyond_the_bound_are_counted_under_one_name() -> None:
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
