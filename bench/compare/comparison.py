"""The result of comparing two streams: what the table, the report and the JSON show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.compare import findings
from bench.compare.findings import Line, Round, Verdict
from bench.figures import bootstrap
from bench.figures.provenance import provenance


class Comparison(NamedTuple):
    """Everything about one run that the table, the report and the JSON show."""

    base: str
    other: str
    links: Mapping[str, Mapping[str, Any]]
    differs: str
    method: str
    lines: Sequence[Line]
    verdict: Verdict
    rounds: Sequence[Round]
    made_on: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The same as dicts all the way down."""
        return {
            **self._asdict(),
            "lines": [_named(line) for line in self.lines],
            "verdict": _named(self.verdict),
        }


def _named(value: Any) -> dict[str, Any]:
    return {
        key: each._asdict() if isinstance(each, bootstrap.Estimate) else each for key, each in value._asdict().items()
    }


def conclude(
    names: tuple[str, str],
    links: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Round],
    *,
    method: str,
    seed: int | None,
) -> Comparison:
    """The comparison that follows from rounds, at least one of which has batches of both streams."""
    base, other = names
    batches = " and ".join(f"{sum(len(each[name]['batch_ms']) for each in rounds)} of {name}" for name in names)
    return Comparison(
        base,
        other,
        links,
        findings.differences(links[base], links[other]),
        f"{method}; batches measured: {batches}",
        findings.lines(rounds, base, other, seed=seed or 0),
        findings.judge(rounds, base, other, seed=seed or 0),
        rounds,
        provenance(seed),
    )
