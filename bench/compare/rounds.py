"""Rounds of a comparison over fresh processes: two streams of one forwarder, which take turns.

Both streams are in one forwarder, over long-lived links to one receiver and one sink. A forwarder, a spool file or a
link may be a few percent faster than the next one for as long as it lives; rounds that share them cannot see that, and
found a stream different from itself. So every round has a fresh forwarder, spool and links, and the order in which they
are created alternates from round to round. Intervals are over rounds, so they include that luck.

A round is a b b a … with one batch each, evenly paced and far enough apart that each usually finds the path idle.
Drift, other work on the machine and the effects of the previous batch fall on both streams alike. Both carry the same
records, written so that each write is exactly one batch: full by bytes as soon as it is read, without any linger. New
links are also made in turns, one by one, before the batches; full speed, which gives CPU and throughput, comes last.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.figures import report
from bench.lab import adminclient
from bench.lab.load import Base
from bench.lab.newlinks import Turn, shake_hands
from bench.lab.processes import StartFailed, wait_until
from bench.lab.rig import Forwarder, Rig, Setup
from bench.speed.fullspeed import measure
from logfwd.intake.batcher import FULL_SHARE

ACKNOWLEDGED_SECONDS = 60.0
WARM_UP_BATCHES = 10
"""Batches per stream in every round, before the measured ones."""
INPUT = "turns.log"


class Side(NamedTuple):
    """One of the two streams."""

    name: str
    mode: str


@dataclass(frozen=True)
class Plan:
    """What to measure, and how much of it."""

    base: Side
    other: Side
    sink: str = "kafka"
    rounds: int = 12
    warm_up_rounds: int = 1
    batches: int = 100
    """Per stream and round."""
    batches_per_second: int = 50
    """Both streams together."""
    batch_kib: int = 128
    handshakes: int = 20
    """Per stream and round."""
    records: int = 100_000
    """Per stream and round at full speed; 0 skips that part."""
    record_bytes: int = 577
    seed: int = 1

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.base, self.other


Figures = dict[str, Any]
"""One side's figures of a round: batch_ms, handshake_ms, connect_ms are lists of values; speed is from `measure`."""


class Runner:
    """`with running(plan, …) as runner`: sink and receiver are up; `runner.round(number)` measures one round."""

    def __init__(self, plan: Plan, rig: Rig, base: Base, copies: int) -> None:
        self.plan, self._rig, self._base, self._copies = plan, rig, base, copies
        self.links: dict[str, dict[str, Any]] = {}
        """What each stream's link negotiated in the last round."""

    def round(self, number: int) -> dict[str, Figures]:
        """Measure one round: a b b a …, or b a a b … in every second round."""
        first, second = self.plan.sides[:: -1 if number % 2 else 1]
        found = self._handshakes(first, second)
        size = f"{self.plan.batch_kib}KiB"
        batch = f'[batch]\nmax_batch_bytes = "{size}"\nmax_uncompressed_bytes = "{size}"\nmax_record_bytes = "8KiB"\n'
        with self._rig.forwarder(Setup(named=(first, second), more=batch)) as forwarder:
            for side in (first, second):
                (forwarder.input(side.name) / INPUT).touch()
            self._batches(forwarder, first, second, WARM_UP_BATCHES)
            for name, durations in self._batches(forwarder, first, second, self.plan.batches).items():
                found[name]["batch_ms"] = durations
            for side in (first, second) if self.plan.records else ():
                alone = replace(forwarder, originals=[side.name])
                found[side.name]["speed"] = measure(self._rig, alone, self._base, self._copies)
            rows = forwarder.site.streams()
            self.links = {side.name: {"mode": side.mode, **(rows[side.name]["link"] or {})} for side in self.plan.sides}
        return found

    def _batches(self, forwarder: Forwarder, first: Side, second: Side, each: int) -> dict[str, list[float]]:
        """Send `each` batches per stream; returns their durations in ms, by stream."""
        admin, names = forwarder.site.admin_address, [first.name, second.name]
        before = {name: adminclient.batch_durations(admin, name, 0)[0] for name in names}
        records = {name: forwarder.records(names=[name]) for name in names}
        for name, written in self._write(forwarder, first, second, each).items():
            records[name] += written
        if not wait_until(
            lambda: all(forwarder.records(names=[name]) >= records[name] for name in names),
            ACKNOWLEDGED_SECONDS,
            every_seconds=0.05,
        ):
            raise StartFailed(f"a round was not acknowledged within {ACKNOWLEDGED_SECONDS:.0f} s")
        found = {name: adminclient.batch_durations(admin, name, before[name])[1] for name in names}
        return {name: [seconds * 1e3 for seconds in values] for name, values in found.items()}

    def _write(self, forwarder: Forwarder, first: Side, second: Side, each: int) -> dict[str, int]:
        """Write the batches of both streams, each when it is due; returns the numbers of records by stream."""
        records, started = dict.fromkeys((first.name, second.name), 0), time.monotonic()
        with ExitStack() as stack:
            paths = {name: forwarder.input(name) / INPUT for name in records}
            files = {name: stack.enter_context(path.open("ab", buffering=0)) for name, path in paths.items()}
            for number, side in enumerate(_in_turn(first, second, each)):
                begin, end = self._cuts[number // 2 % len(self._cuts)]
                time.sleep(max(started + number / self.plan.batches_per_second - time.monotonic(), 0))
                files[side.name].write(self._data[self._base.starts[begin] : self._base.starts[end]])
                records[side.name] += end - begin
        return records

    @cached_property
    def _data(self) -> bytes:
        return self._base.path.read_bytes()

    @cached_property
    def _cuts(self) -> list[tuple[int, int]]:
        return list(cuts(self._base, self.plan.batch_kib * 1024))

    def _handshakes(self, first: Side, second: Side) -> dict[str, Figures]:
        """Open new links as the forwarder does, to the same receiver."""
        turns = [
            Turn(side.name, side.mode, self._rig.addresses[side.mode])
            for side in _in_turn(first, second, self.plan.handshakes)
        ]
        found = shake_hands(self._rig.site.directory / "pki", turns)
        return {
            side.name: {
                "handshake_ms": [facts.handshake_seconds * 1e3 for facts in found.get(side.name, ())],
                "connect_ms": [facts.connect_seconds * 1e3 for facts in found.get(side.name, ())],
            }
            for side in (first, second)
        }


def _in_turn(first: Side, second: Side, each: int) -> Iterator[Side]:
    """a b b a a b b a …, `each` turns per side."""
    return itertools.islice(itertools.cycle((first, second, second, first)), 2 * each)


def cuts(base: Base, most_bytes: int) -> Iterator[tuple[int, int]]:
    """(first, last) records of batches that are full for the forwarder as soon as it has read them.

    Each holds as many records as fit, so that not even a forwarder that lags and reads on could add one more.
    """
    first = 0
    for last in range(1, base.records):
        if base.starts[last + 1] - base.starts[first] > most_bytes:
            if base.starts[last] - base.starts[first] < most_bytes - most_bytes // FULL_SHARE:
                raise StartFailed(f"records are too long for batches of {most_bytes} bytes")
            yield first, last
            first = last
    if first == 0:
        raise StartFailed(f"{base.size} bytes of records do not fill one batch of {most_bytes}")


@contextmanager
def running(plan: Plan, directory: Path, console: Any) -> Iterator[Runner]:
    """Sink and receiver, fresh; raises StartFailed."""
    base, copies = report.base_file(
        directory, console, max(plan.records, 20_000), seed=plan.seed, record_bytes=plan.record_bytes
    )
    with Rig(directory, sink=plan.sink, modes=[side.mode for side in plan.sides]) as rig:
        yield Runner(plan, rig, base, copies)
