"""A spool of format version 1, with everything that a spool can hold: nothing is lost when it is opened."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from logfwd.sources.keys import Key, key_hash
from logfwd.spool.first_page import first_page
from logfwd.spool.notes import Notes
from logfwd.spool.schema import PAGE_BYTES
from logfwd.spool.store import Spool
from streams.errors import BatchCorrupt, SpoolCorrupt
from streams.records import batch as recordbatch
from tests.support.installation import eventually
from tests.support.spool_v1 import SAMPLE, check, closed, killed, witnesses
from tests.support.spools import backlog_of, balanced, flip, records_of

KEY = Key(progress=100, total=None, accepted=3, invalid=1, digest=b"digest", expires=4e9)
KEY_HASH = key_hash("http", "client", b"request 1")
COUNTERS = {18, 19, *range(24, 44), *range(92, 100)}
"""Bytes of the header that change (sqlite.org/fileformat2.html, "The Database Header")."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return closed(tmp_path)


@pytest.fixture
def killed_one(tmp_path: Path) -> Path:
    return killed(tmp_path)


async def upgrade(path: Path) -> Path:
    """Open the spool once, as a forwarder does, and use what only version 2 has."""
    async with Spool(path) as spool:
        notes = Notes()
        spool.keys.put(KEY_HASH, KEY, notes)
        await spool.commit(notes)
    return path


async def test_everything_in_a_closed_spool_of_version_1_comes_back(path: Path) -> None:
    await check(path)


async def test_everything_in_a_killed_spool_of_version_1_comes_back(killed_one: Path) -> None:
    await check(killed_one)


async def test_an_upgraded_spool_says_in_both_places_that_older_programs_must_leave_it_alone(path: Path) -> None:
    assert witnesses(path) == (1, "1")
    await check(path)
    assert witnesses(path) == (2, "2")
    await check(path)


async def test_a_spool_of_version_1_whose_log_is_lost_is_reported(killed_one: Path) -> None:
    killed_one.with_name("http.spool-wal").unlink()
    connection = sqlite3.connect(killed_one)
    with connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'open'")
    connection.close()
    killed_one.with_name("http.spool-wal").unlink(missing_ok=True)
    async with Spool(killed_one) as spool:
        assert spool.repeats_possible == {"http", "pq-stream"}
        assert len(backlog_of(spool).rows) == 14


@pytest.mark.parametrize("at", range(100))
async def test_a_flipped_byte_in_the_header_of_version_1_costs_nothing(path: Path, at: int) -> None:
    flip(path, at)
    await check(path, damaged=True)


@pytest.mark.parametrize("at", range(100))
async def test_a_flipped_byte_in_the_header_of_an_upgraded_spool_costs_nothing(path: Path, at: int) -> None:
    flip(await upgrade(path), at)
    await check(path, damaged=True)
    await has_what_version_2_adds(path)


@pytest.mark.parametrize("version", [1, 2])
async def test_any_flipped_byte_is_survived_before_and_after_the_upgrade(path: Path, version: int) -> None:
    """All payloads are in few pages, so any number of them may be lost; then they are counted."""
    if version == 2:
        await upgrade(path)
    whole, dice = path.read_bytes(), random.Random(version)
    for _ in range(40):
        for left in path.parent.iterdir():
            left.unlink()
        path.write_bytes(whole)
        at = dice.randrange(len(whole))
        flip(path, at, dice.randrange(1, 256))
        assert await read_in_spite_of_damage(path) <= set(range(9, 48)), at


async def read_in_spite_of_damage(path: Path) -> set[int]:
    """The records of all batches that are not damaged. Damage met on the way is repaired by the next open."""
    for _ in range(3):
        with contextlib.suppress(SpoolCorrupt):
            async with Spool(path) as spool:
                http, found = backlog_of(spool), set[int]()
                assert balanced(http)
                assert balanced(backlog_of(spool, "pq-stream", drops=True))
                for row in http.rows:
                    with contextlib.suppress(BatchCorrupt):
                        payload = await spool.payload(row)
                        recordbatch.check(payload)
                        values = [record.value or b"" for record in recordbatch.iterate(payload, max_bytes=1 << 24)]
                        found.update(int(value.split(b":")[1].split(b",")[0]) for value in values)
                return found
    raise AssertionError("still damaged after three opens")


@pytest.mark.parametrize("version", [1, 2])
async def test_a_version_changed_to_the_other_one_in_the_header_costs_nothing(path: Path, version: int) -> None:
    if version == 2:
        await upgrade(path)
    flip(path, 63, mask=1 ^ 2)
    await check(path, damaged=True)
    if version == 2:
        await has_what_version_2_adds(path)


@pytest.mark.parametrize("version", [1, 2])
async def test_without_its_first_page_nothing_is_lost(path: Path, version: int) -> None:
    if version == 2:
        await upgrade(path)
    with path.open("r+b") as file:
        file.write(random.Random(version).randbytes(PAGE_BYTES))
    await check(path, damaged=True)
    if version == 2:
        await has_what_version_2_adds(path)


@pytest.mark.parametrize("table", ["positions", "totals"])
async def test_a_wrecked_table_of_version_1_is_noticed_before_the_upgrade(path: Path, table: str) -> None:
    with path.open("r+b") as file:
        file.seek((first_page(1).roots[table] - 1) * PAGE_BYTES)
        file.write(random.Random(1).randbytes(PAGE_BYTES))
    async with Spool(path) as spool:
        http = backlog_of(spool)
        assert await records_of(spool, http.rows) == list(range(9, 48))
        assert (spool.positions == {}) == (table == "positions")
        assert balanced(http)
    assert len([found for found in path.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm"))]) == 1
    assert witnesses(path) == (2, "2")


async def has_what_version_2_adds(path: Path) -> None:
    async with Spool(path) as spool:
        assert await spool.key(KEY_HASH) == KEY


async def test_a_nearly_empty_upgraded_spool_becomes_like_a_new_one_when_it_is_idle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.spool.committer.IDLE_SECONDS", 0.01)
    await upgrade(path)
    assert not is_like_a_new_one(path)
    async with Spool(path):
        await eventually(lambda: not has_meta(path, "roots"))
    assert is_like_a_new_one(path)
    await check(path)
    await has_what_version_2_adds(path)


def is_like_a_new_one(path: Path) -> bool:
    """True if the first page is that of a spool of version 2: salvage depends on it."""
    page, new = path.read_bytes()[:PAGE_BYTES], first_page().content
    different = {at for at, (one, other) in enumerate(zip(page, new, strict=True)) if one != other}
    return different <= COUNTERS


def has_meta(path: Path, key: str) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchall())


async def test_every_new_spool_has_the_same_first_page(tmp_path: Path) -> None:
    async with Spool(tmp_path / "new.spool", definition="{}"):
        pass
    assert is_like_a_new_one(tmp_path / "new.spool")


def test_the_first_page_of_version_1_is_known() -> None:
    page, known = SAMPLE.read_bytes()[:PAGE_BYTES], first_page(1).content
    assert {at for at, (one, other) in enumerate(zip(page, known, strict=True)) if one != other} <= COUNTERS
