"""What follows from the rounds of two streams: figures with intervals, ratios, one verdict in words. No I/O.

A round gives each side one figure per line: the median (mean, p95, p99) of its values in that round, or the result at
full speed. A line shows the median over the rounds with its 95 % interval, and as ratio the geometric mean of the
rounds' ratios with its own interval. One line, the primary one, decides the verdict, at 99 %.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bench.figures import bootstrap
from bench.figures.bootstrap import Estimate
from bench.figures.measure import percentile

Round = Mapping[str, Mapping[str, Any]]
"""Figures of each side by the stream's name; see bench/compare/rounds.py."""
Statistic = Callable[[Sequence[float]], float]

STATISTICS: Mapping[str, Statistic] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "p95": partial(percentile, share=0.95),
    "p99": partial(percentile, share=0.99),
}
LEAST = 1e-6
"""Stands in for 0, so that a CPU time too short for the kernel's clock still gives a ratio."""


class Metric(NamedTuple):
    """A line: its name, its unit, and its value in one side's figures of a round; None if they lack it."""

    name: str
    unit: str
    of: Callable[[Mapping[str, Any]], float | None]
    primary: bool = False


def _values(key: str, statistic: Statistic) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda figures: statistic(figures[key]) if figures.get(key) else None


def _speed(find: Callable[[Mapping[str, Any]], float]) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda figures: find(figures["speed"]) if "speed" in figures else None


def _cpu(process: str) -> Callable[[Mapping[str, Any]], float | None]:
    return _speed(lambda speed: float(speed["cpu_seconds_per_gb"][process]))


METRICS = (
    *(
        Metric(f"batch duration, {name}", "ms", _values("batch_ms", statistic), primary=name == "median")
        for name, statistic in STATISTICS.items()
    ),
    *(
        Metric(f"{title}, {name}", "ms", _values(key, STATISTICS[name]))
        for title, key in (("handshake", "handshake_ms"), ("TCP connect", "connect_ms"))
        for name in ("median", "p95", "p99")
    ),
    Metric("forwarder", "CPU-s/GB", _cpu("forwarder")),
    Metric("receiver", "CPU-s/GB", _cpu("receiver")),
    Metric("full speed", "MB/s", _speed(lambda speed: float(speed["megabytes_per_second"]))),
    Metric("acknowledged", "records/s", lambda figures: figures.get("records_per_second")),
)


class Line(NamedTuple):
    """One metric of both sides."""

    metric: str
    unit: str
    primary: bool
    base: Estimate
    other: Estimate
    ratio: Estimate
    rounds: int


class Verdict(NamedTuple):
    """The result for the primary metric, also in words."""

    found: str
    metric: str
    ratio: Estimate
    confidence: float
    words: str


def lines(rounds: Sequence[Round], base: str, other: str, *, seed: int) -> list[Line]:
    """Every metric that the rounds have figures for."""
    return [
        Line(
            metric.name,
            metric.unit,
            metric.primary,
            bootstrap.estimate(bases, seed=seed),
            bootstrap.estimate(others, seed=seed),
            bootstrap.ratio(bases, others, seed=seed),
            len(bases),
        )
        for metric in METRICS
        for bases, others in [_pairs(metric, rounds, base, other)]
        if bases
    ]


def _pairs(metric: Metric, rounds: Sequence[Round], base: str, other: str) -> tuple[list[float], list[float]]:
    """The figures of both sides, from the rounds that have both."""
    both = [(metric.of(each[base]), metric.of(each[other])) for each in rounds]
    found = [(max(one, LEAST), max(two, LEAST)) for one, two in both if one is not None and two is not None]
    return [one for one, _ in found], [two for _, two in found]


def judge(rounds: Sequence[Round], base: str, other: str, *, seed: int) -> Verdict:
    """The verdict on the primary metric. Needs at least one round with figures of both sides."""
    metric = next(each for each in METRICS if each.primary)
    bases, others = _pairs(metric, rounds, base, other)
    ratio = bootstrap.ratio(bases, others, confidence=bootstrap.VERDICT, seed=seed)
    found = bootstrap.verdict(bases, others, seed=seed)
    interval = f"{bootstrap.VERDICT * 100:.0f} % interval {ratio.low:.3f} … {ratio.high:.3f}, {len(bases)} rounds"
    if found != "no difference":
        words = f"{other} is {ratio.value:.3f} times {base} ({metric.name}; {interval})"
    elif len(bases) < bootstrap.FEWEST:
        words = f"no difference shown: {len(bases)} rounds are too few to show one, it takes {bootstrap.FEWEST}"
    else:
        words = f"no difference shown: {other} / {base} = {ratio.value:.3f} ({metric.name}; {interval}, contains 1)"
    return Verdict(found, metric.name, ratio, bootstrap.VERDICT, words)


VARIABLES = {
    "group": "key-exchange group",
    "version": "TLS version",
    "cipher": "cipher suite",
    "authentication": "authentication",
}


def differences(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In words, how the links of two streams differ."""
    found = [
        f"{title} ({base.get(key) or 'no link'} → {other.get(key) or 'no link'})"
        for key, title in VARIABLES.items()
        if base.get(key) != other.get(key)
    ]
    if not found:
        return "TLS negotiated the same for both"
    return f"they differ only in the {found[0]}" if len(found) == 1 else f"they differ in {', '.join(found)}"
