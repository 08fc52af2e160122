"""The spool in every state that kill -9 or a power loss can leave on disk: nothing that was confirmed is missing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from logfwd.spool.schema import PAGE_BYTES
from logfwd.spool.store import Spool
from tests.support import spool_v1, syscalls
from tests.support.crash_points import Point, laid_out, record
from tests.support.spool_worker import BATCHES, BATCHES_IN_A_REQUEST, request_hash
from tests.support.spools import RECORDS_IN_A_BATCH, accept, backlog_of, balanced, fill, offset_of, records_of

TWIN = "pq-stream"


@pytest.fixture(autouse=True)
def can_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)
    monkeypatch.setattr("logfwd.spool.room.RESERVE_BYTES", 4096)  # hundreds of spools are opened here


def record_worker(path: Path, seed: int, *arguments: str) -> list[Point]:
    argv = [sys.executable, "-m", "tests.support.spool_worker", str(path), *arguments]
    return record(argv, path.parent, seed, names_can_be_lost=True)


async def check(point: Point, path: Path, stamps: dict[tuple[int, int, int], int]) -> None:
    """Check the promises on one disk, then go on working with it."""
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, TWIN, drops=True)
        position = offset_of(spool) * RECORDS_IN_A_BATCH if spool.positions else 0
        assert point.said["accepted"] <= position <= point.said["handed"]
        waiting = await records_of(spool, original.rows)
        dead = original.totals.dead_lettered
        assert waiting == list(range(position - len(waiting), position))
        assert original.totals.acknowledged + dead == position - len(waiting) <= point.said["leaving"]
        twins = await records_of(spool, twin.rows)
        assert twins == list(range(position - len(twins), position))
        assert balanced(original)
        assert balanced(twin)
        assert spool.repeats_possible == set()
        for request in range(BATCHES // BATCHES_IN_A_REQUEST):
            begin, end = (at * BATCHES_IN_A_REQUEST * RECORDS_IN_A_BATCH for at in (request, request + 1))
            key = await spool.key(request_hash(request))
            assert (key.progress if key else begin) == max(min(position, end), begin)
            assert (key is not None and key.finished) == (position >= end)
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
@pytest.mark.parametrize(
    "arguments",
    [["with-checkpoints"], [], ["small-window"]],
    ids=["with-checkpoints", "without-checkpoints", "small-window"],
)
def test_at_every_point_of_its_life_a_spool_survives_kill_9_and_power_loss(
    tmp_path: Path, arguments: list[str]
) -> None:
    """Checkpoints sync the log: only without them is it seen that each commit does."""
    site = tmp_path / "site"
    site.mkdir()
    seed = random.randrange(1 << 32)
    points = record_worker(site / "http.spool", seed, *arguments)
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
                assert await records_of(spool, backlog.rows) == list(range(9, 60)), where
                assert offset_of(spool) == 20
                assert balanced(backlog)

    asyncio.run(check_all())
    print(f"{len(points)} points while a damaged file was replaced: all recovered")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["closed", "killed"])
def test_at_every_point_of_the_upgrade_from_version_1_everything_is_there_once(tmp_path: Path, state: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    path = spool_v1.closed(site) if state == "closed" else spool_v1.killed(site)
    points = record_worker(path, 1, "only-open")
    assert len(points) > 5
    versions = check_all_of_version_1(points)
    assert versions == {(1, "1"), (2, "2")}
    print(f"{len(points)} points while a {state} spool of version 1 was upgraded: all recovered")


@pytest.mark.slow
def test_at_every_point_of_making_an_upgraded_file_smaller_everything_is_there_once(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    path = spool_v1.closed(site)
    with contextlib.closing(sqlite3.connect(path)) as connection:  # free pages, between those that are in use
        with connection:
            connection.execute("INSERT INTO blobs VALUES (1000, ?)", (bytes(40 * PAGE_BYTES),))
            connection.execute("INSERT INTO blobs SELECT id + 2000, payload FROM blobs WHERE id < 1000")
        with connection:
            connection.execute("DELETE FROM blobs WHERE id >= 1000")
    points = record_worker(path, 1, "become-smaller")
    assert len(points) > 10
    check_all_of_version_1(points)
    print(f"{len(points)} points while an upgraded file became smaller: all recovered")


def check_all_of_version_1(points: list[Point]) -> set[tuple[int, str]]:
    """Check the spool at every point; returns the versions found on disk."""
    versions = set()

    async def check_all() -> None:
        for where, _, directory in laid_out(points):
            path = directory / "http.spool"
            try:
                shutil.copytree(directory, directory / "copy")
                versions.add(spool_v1.witnesses(directory / "copy" / "http.spool"))
                shutil.rmtree(directory / "copy")
                await spool_v1.check(path)
            except AssertionError as error:
                raise AssertionError(where) from error

    asyncio.run(check_all())
    return versions
