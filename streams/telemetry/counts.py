"""Current values of counters and gauges by label, so that the API and /metrics can never disagree."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.metrics import Counter, Gauge


def counts(family: Counter | Gauge, by: str, and_by: str) -> dict[str, dict[str, int]]:
    """Values by two labels, of which the first is usually the stream; other labels are summed over."""
    found: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for metric in family.collect():
        for sample in metric.samples:
            found[sample.labels[by]][sample.labels[and_by]] += int(sample.value)
    return {first: dict(seconds) for first, seconds in found.items()}
