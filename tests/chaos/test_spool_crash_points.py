"""The spool in every state that kill -9 or a power loss can leave on disk: nothing that was confirmed is missing."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from logfwd.backlog import Backlog
from logfwd.spool import Spool
from streams import recordbatch
from tests.support import syscalls
from tests.support.crash_points import Point, laid_out, record
from tests.support.spools import RECORDS_IN_A_BATCH, accept, backlog_of, balanced, fill, offset_of

TWIN = "pq-stream"


@pytest.fixture(autouse=True)
def can_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)
    monkeypatch.setattr("logfwd.spool.RESERVE_BYTES", 4096)  # hundreds of spools are opened here


def record_worker(path: Path, seed: int, *arguments: str) -> list[Point]:
    return record([sys.executable, "-m", "tests.support.spool_worker", str(path), *arguments], path.parent, seed)


async def records_of(spool: Spool, backlog: Backlog) -> list[int]:
    """The numbers of all waiting records, in order; BatchCorrupt if one is damaged."""
    return [
        int((record.value or b"").split(b":")[1].split(b",")[0])
        for row in backlog.rows
        for record in recordbatch.iterate(await spool.payload(row), max_bytes=1 << 24)
    ]


async def check(point: Point, path: Path, stamps: dict[tuple[int, int, int], int]) -> None:
    """Check the promises on one disk, then go on working with it."""
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, TWIN, drops=True)
        position = offset_of(spool) * RECORDS_IN_A_BATCH if spool.positions else 0
        assert point.said["accepted"] <= position <= point.said["handed"]
        waiting = await records_of(spool, original)
        dead = original.totals.dead_lettered
        assert waiting == list(range(position - len(waiting), position))
        assert original.totals.acknowledged + dead == position - len(waiting) <= point.said["leaving"]
        twins = await records_of(spool, twin)
        assert twins == list(range(position - len(twins), position))
        assert balanced(original)
        assert balanced(twin)
        assert spool.repeats_possible == set()
        at = position - len(waiting)
        for row in original.rows:
            run = original.runs[row.run]
            for part in range(row.record_count if row.base_sequence is not None else 0):
                stamp = (run.producer_id, run.producer_epoch, (row.base_sequence or 0) + part)
                assert stamps.setdefault(stamp, at + part) == at + part
            at += row.record_count
        await accept(spool, position // RECORDS_IN_A_BATCH, original, twin)
    assert not list(path.parent.glob("*.damaged-*"))


@pytest.mark.slow
def test_at_every_point_of_its_life_a_spool_survives_kill_9_and_power_loss(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    seed = random.randrange(1 << 32)
    points = record_worker(site / "http.spool", seed)
    assert len(points) > 200
    stamps: dict[tuple[int, int, int], int] = {}

    async def check_all() -> None:
        for where, point, directory in laid_out(points):
            try:
                await check(point, directory / "http.spool", stamps)
            except AssertionError as error:
                raise AssertionError(f"{where}, seed {seed}") from error

    asyncio.run(check_all())
    print(f"{len(points)} points, kill -9 and power loss at each: all recovered")


@pytest.mark.slow
def test_at_every_point_of_replacing_a_damaged_file_nothing_intact_is_lost(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    path = site / "http.spool"
    asyncio.run(fill(path, padding=3000))
    with path.open("r+b") as file:
        file.write(b"damaged")
    points = record_worker(path, 1, "only-open")
    assert len(points) > 20

    async def check_all() -> None:
        for where, _, directory in laid_out(points):
            async with Spool(directory / "http.spool") as spool:
                backlog = backlog_of(spool)
                assert await records_of(spool, backlog) == list(range(9, 60)), where
                assert offset_of(spool) == 20
                assert balanced(backlog)

    asyncio.run(check_all())
    print(f"{len(points)} points while a damaged file was replaced: all recovered")
