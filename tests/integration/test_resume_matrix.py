"""Every way in which a window of batches can break off, across every way in which a broker can come back.

A combination says how much of a window was stored and acknowledged when the forwarder, its receiver and the broker all
went down. Each has a stream, a topic and a producer id of its own, so one broker event serves them all. `make test`
runs a sample with a broker that was killed, `make chaos` (CHAOS=1) all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from tests.support.chaos import CHAOS
from tests.support.delivery import Life, Way, joined, numbered, way_to

pytestmark = pytest.mark.kafka
AT_ONCE = 20


@dataclass(frozen=True)
class Combination:
    """A window at the moment of the crash. `begun`: a batch before it was stored and acknowledged long ago."""

    begun: bool
    sent: int
    stored: int
    acknowledged: int

    def __str__(self) -> str:
        return f"{'begun' if self.begun else 'fresh'}-{self.sent}-{self.stored}-{self.acknowledged}"


COMBINATIONS = [
    Combination(begun, sent, stored, acknowledged)
    for sent in (range(1, 6) if CHAOS else (1, 3, 5))
    for begun in ((False, True) if CHAOS or sent == 1 else (True,))
    for stored in range(sent + 1)
    for acknowledged in range(stored + 1)
]


async def break_off(life: Life, combination: Combination) -> None:
    """The first life: a window is on its way, part of it is stored, part of that is known to be."""
    if combination.begun:
        await life.seal(*numbered(0))
    await life.seal(*numbered(*range(1, combination.sent + 1)))
    await life.open_run()
    rows = list(life.backlog.rows)
    if combination.begun:
        await life.store(rows[0])
        await life.acknowledge(rows.pop(0))
    await life.store(*rows[: combination.stored])
    for row in rows[: combination.acknowledged]:
        await life.acknowledge(row)


async def go_on(life: Life, combination: Combination) -> str:
    """The second life seals one batch of its own, and finishes; returns what is wrong with its books."""
    await life.seal(*numbered(combination.sent + 1))
    await life.finish()
    totals = life.backlog.totals
    expected = len(joined(records_of(combination)))
    if (totals.acknowledged, totals.resets, totals.dead_lettered) == (expected, 0, 0):
        return ""
    return f"{combination}: {totals}"


def records_of(combination: Combination) -> list[list[bytes]]:
    return numbered(*range(0 if combination.begun else 1, combination.sent + 2))


async def judge(way: Way, prefix: str, event: Callable[[], Awaitable[None]]) -> int:
    """All combinations up to the crash, the event, all to their end, what the topics hold. How many they were."""
    streams = {f"{prefix}-{combination}": combination for combination in COMBINATIONS}
    busy = asyncio.Semaphore(AT_ONCE)

    async def one(stream: str, part: Callable[[Life, Combination], Awaitable[str | None]]) -> str | None:
        async with busy, way.life(stream) as life:
            return await part(life, streams[stream])

    await asyncio.gather(*(one(stream, break_off) for stream in streams))
    await event()
    wrong = await asyncio.gather(*(one(stream, go_on) for stream in streams))
    assert [text for text in wrong if text] == []
    stored = await way.stored(*streams)
    expected = {stream: joined(records_of(combination)) for stream, combination in streams.items()}
    assert stored == expected
    return len(streams)


def show(capsys: pytest.CaptureFixture[str], count: int, event: str) -> None:
    with capsys.disabled():
        print(f"\n{count} combinations, {event}: all stored once, in order, resets 0")


@pytest.mark.parametrize("clean", [pytest.param(True, marks=pytest.mark.chaos), False], ids=["stopped", "killed"])
async def test_any_part_of_a_window_is_finished_once_and_in_order_after_the_broker_was_restarted(
    kafka: Kafka, tmp_path: Path, topic_name: str, clean: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def restart() -> None:
        kafka.restart(clean=clean)

    async with way_to(kafka, tmp_path) as way:
        count = await judge(way, topic_name, restart)
    show(capsys, count, "broker stopped and started" if clean else "broker killed and started")
