"""Two streams of a running forwarder, observed through its admin address: time slices stand in for rounds.

Nothing is fed and nothing takes turns: the figures are those of the forwarder's own load. A twin carries its original's
batches at the same time, so the two have the same load in every slice; other streams do not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bench.compare.findings import Round
from bench.lab import adminclient
from streams.telemetry.client import NotAnswered

VARIABLES = ("group", "version", "cipher", "authentication", "receiver")


class Observed(NamedTuple):
    """What each stream's link negotiated, the slices, and in words how they were measured."""

    links: dict[str, dict[str, Any]]
    slices: list[Round]
    method: str


def observe(
    admin: str, base: str, other: str, *, seconds: float, slices: int, each: Callable[[int], None] = lambda _: None
) -> Observed:
    """Look at both streams at the end of every slice; raises NotAnswered if there is nothing to compare."""
    looks = [_look(admin, base, other)]
    started = time.monotonic()
    for number in range(slices):
        each(number)
        time.sleep(max(started + (number + 1) * seconds / slices - time.monotonic(), 0))
        looks.append(_look(admin, base, other, looks[-1]))
    found = [_slice(*pair) for pair in itertools.pairwise(looks)]
    if not any(all(figures["batch_ms"] for figures in each.values()) for each in found):
        raise NotAnswered(f"{base} and {other} had no batch acknowledged in the same slice of {seconds / slices:g} s")
    links = {name: _link(looks[-1].rows[name]) for name in (base, other)}
    return Observed(links, found, _method(admin, looks, base, other, seconds, slices))


class _Look(NamedTuple):
    at: float
    rows: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, int]
    seconds: Mapping[str, list[float]]


def _look(admin: str, base: str, other: str, before: _Look | None = None) -> _Look:
    """Both streams now, and the batch durations since the previous look; the first look asks for none."""
    found = {row["stream"]: row for row in adminclient.streams(admin)}
    if missing := [name for name in (base, other) if "batch_duration_seconds" not in found.get(name, {})]:
        raise NotAnswered(
            f"{admin} has no stream {' or '.join(missing)}; its streams: {', '.join(sorted(found)) or 'none'}"
        )
    durations = {}
    for name in (base, other):
        since = before.counts[name] if before else found[name]["batch_duration_seconds"]["count"]
        durations[name] = adminclient.batch_durations(admin, name, since)
    counts = {name: count for name, (count, _) in durations.items()}
    return _Look(time.monotonic(), found, counts, {name: values for name, (_, values) in durations.items()})


def _slice(before: _Look, after: _Look) -> Round:
    seconds = after.at - before.at

    def figures(name: str) -> dict[str, Any]:
        records = _acknowledged(after, name) - _acknowledged(before, name)
        return {
            "batch_ms": [each * 1e3 for each in after.seconds[name]],
            "records_per_second": records / seconds if records > 0 else None,
        }

    return {name: figures(name) for name in after.counts}


def _acknowledged(look: _Look, name: str) -> int:
    return int(look.rows[name]["records"]["acknowledged"])


def _link(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"mode": row["mode"], **(row["link"] or {}), "handshake_seconds": row["handshake_seconds"]}


def _method(admin: str, looks: list[_Look], base: str, other: str, seconds: float, slices: int) -> str:
    twins = looks[-1].rows[other]["twin_of"] == base or looks[-1].rows[base]["twin_of"] == other
    parts = [
        f"a running forwarder ({admin}), observed for {seconds:g} s in {slices} slices",
        "the load is its own and was not interleaved",
        "one is the twin of the other: both carry the same batches at the same time, and each disturbs the other"
        if twins
        else "neither is the twin of the other: they may carry different records, which alone may explain a difference",
    ]
    for name in (base, other):
        first, last = (look.rows[name]["link"] or {} for look in (looks[0], looks[-1]))
        if any(first.get(key) != last.get(key) for key in VARIABLES):
            parts.append(f"the link of {name} changed meanwhile: its figures cover more than one link")
    return "; ".join(parts)
