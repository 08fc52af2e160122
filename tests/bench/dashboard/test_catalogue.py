"""The catalogue: every metric that is declared is documented and exposed, and no other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bench.dashboard import catalogue
from bench.dashboard.catalogue import CATALOGUE
from bench.lab.unobserved import MAKERS, Nothing, observe_nothing
from logfwd.metrics import BATCH_DURATION, FORWARDER, ForwarderMetrics
from logreceiver.metrics import RECEIVER, ReceiverMetrics
from logreceiver.posture import SinkConnections
from streams.telemetry.metrics import SHARED, CollectorRegistry, Metric, Metrics

DOCS = Path(__file__).parents[3] / "docs"
PROGRAMS = ((ForwarderMetrics, (*SHARED, *FORWARDER)), (ReceiverMetrics, (*SHARED, *RECEIVER)))


def exposed(registry: CollectorRegistry) -> dict[str, tuple[str, str, str]]:
    """Name → kind, unit, sentence of every family of ours."""
    text = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.unit, family.documentation)
        for family in families
        if not family.name.startswith("process_")
    }


@pytest.mark.parametrize(("make", "part"), PROGRAMS)
def test_a_program_exposes_its_part_of_the_catalogue_and_nothing_else(
    make: Callable[[CollectorRegistry], Metrics], part: tuple[Metric, ...]
) -> None:
    registry = CollectorRegistry()
    make(registry)
    assert exposed(registry) == {metric.name: (metric.kind, metric.unit, metric.sentence) for metric in part}


@pytest.mark.parametrize(("make", "part"), PROGRAMS)
def test_a_program_that_observes_nothing_has_no_family(
    make: Callable[[CollectorRegistry], Metrics], part: tuple[Metric, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for maker in MAKERS:
        monkeypatch.setattr(Metrics, maker, getattr(Metrics, maker))  # restored after the test
    observe_nothing()
    registry = CollectorRegistry()
    known = [value for name, value in vars(make(registry)).items() if not name.startswith("_")]
    families = [value for value in known if not isinstance(value, SinkConnections)]
    assert all(isinstance(family, Nothing) for family in families)
    assert exposed(registry) == {}


def test_docs_are_printed_from_the_catalogue() -> None:
    assert (DOCS / "metrics.md").read_text() == catalogue.markdown(), (
        "run: python -m bench.dashboard.catalogue > docs/metrics.md"
    )


def test_names_follow_the_rules_of_prometheus() -> None:
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not metric.unit or metric.unit in metric.name.removesuffix("_total").split("_")[-1], metric.name
        assert metric.sentence.endswith("."), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_buckets_of_durations_resolve_a_tenth_of_a_millisecond_to_ten_seconds() -> None:
    buckets = BATCH_DURATION.buckets
    assert (buckets[0], buckets[-1]) == (0.0001, 10.0)
    assert all(1 < after / before <= 1.7 for before, after in pairwise(buckets))
