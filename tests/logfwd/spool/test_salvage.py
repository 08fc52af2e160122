"""A spool file damaged in every way: never a crash, never a loop, and everything intact is taken over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.schema import PAGE_BYTES
from logfwd.spool.store import Spool
from streams.errors import BatchCorrupt, SpoolCorrupt
from tests.support.spools import accept, backlog_of, balanced, dead_letters, fill, flip, number_of, offset_of, waiting

WAITING = list(range(3, 20))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool of 20 batches: 0 and 1 acknowledged, 2 a dead letter, 3 to 19 waiting in a stamped run."""
    path = tmp_path_factory.mktemp("whole") / "http.spool"
    asyncio.run(fill(path, padding=9000))
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path))


def kept(path: Path) -> list[Path]:
    """Files that were set aside, not counting their logs."""
    return sorted(found for found in path.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm")))


async def use(path: Path) -> tuple[list[int], Spool, Backlog]:
    """Read everything and go on writing; damage met on the way breaks the spool, and the next open repairs it."""
    for _ in range(3):
        try:
            async with Spool(path) as spool:
                backlog, found = backlog_of(spool), []
                for row in backlog.rows:
                    try:
                        found.append(number_of(await spool.payload(row)))
                    except BatchCorrupt:
                        found.append(-1)  # the sender moves such a batch to the dead letters
                await accept(spool, 99, backlog)
                notes = Notes()
                for row in list(backlog.rows):
                    backlog.dead_letter(row, "test", "", notes)
                await spool.commit(notes)
                return found, spool, backlog
        except SpoolCorrupt:
            continue
    raise AssertionError("still damaged after three opens")


def page_of(path: Path, table: str) -> int:
    """Offset of a table's root page in the file."""
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    return (int(root) - 1) * PAGE_BYTES


async def test_an_undamaged_spool_is_left_alone(path: Path) -> None:
    found, spool, backlog = await waiting(path)
    assert (found, kept(path), spool.repeats_possible) == (WAITING, [], set())
    assert dead_letters(path) == [2]
    assert balanced(backlog)


@pytest.mark.parametrize("at", range(100))
async def test_a_flipped_byte_of_the_header_costs_nothing(path: Path, at: int) -> None:
    flip(path, at)
    found, spool, backlog = await waiting(path)
    assert found == WAITING
    assert offset_of(spool) == 20
    assert [row.base_sequence for row in backlog.rows] == [number * 3 for number in WAITING]
    assert backlog.runs[1].producer_id == 1000
    assert dead_letters(path) == [2]
    assert balanced(backlog)
    assert spool.repeats_possible == set()


@pytest.mark.parametrize("table", ["meta", "runs", "blobs", "batches", "positions", "totals", "dead_letters", "keys"])
async def test_a_wrecked_table_page_costs_that_table_and_no_batch(path: Path, table: str) -> None:
    with path.open("r+b") as file:
        file.seek(page_of(path, table))
        file.write(random.Random(table).randbytes(PAGE_BYTES))
    found, spool, backlog = await use(path)
    assert found == ([] if table == "blobs" else WAITING)
    assert (spool.positions == {}) == (table == "positions")
    assert len(kept(path)) == 1
    assert balanced(backlog)
    repeats = {"runs", "batches", "positions", "keys"}
    assert spool.repeats_possible == ({"http"} if table in repeats else set())
    assert spool.lost_records == ({"http": 3 * len(WAITING)} if table == "blobs" else {})
    assert backlog.totals.resets == (table in repeats)
    if table == "blobs":
        assert backlog.totals.dropped == len(WAITING) * 3


async def test_every_total_is_taken_over(path: Path) -> None:
    async with Spool(path) as spool:
        totals = backlog_of(spool).totals
        totals.sampled, totals.limited, totals.filtered, totals.invalid = 7, 8, 9, 10
        notes = Notes()
        notes.put_totals("http", totals)
        await spool.commit(notes)
    flip(path, 0)
    _, spool, backlog = await waiting(path)
    assert (backlog.totals, len(kept(path))) == (totals, 1)


async def test_batches_that_vanished_without_any_other_sign_are_counted_as_lost(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM batches WHERE id = (SELECT max(id) FROM batches)")
    found, _, backlog = await use(path)
    assert (found, len(kept(path))) == (WAITING, 1)  # its payload is there
    assert balanced(backlog)


async def test_text_where_bytes_belong_is_damage(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE positions SET value = 'text'")
    found, spool, _ = await use(path)
    assert (found, spool.positions, len(kept(path))) == (WAITING, {}, 1)


async def test_a_flipped_byte_in_a_batch_is_found_by_its_crc_and_costs_that_batch(path: Path) -> None:
    at = path.read_bytes().index(b'"n":30,') + 500
    flip(path, at)
    found, _, _ = await use(path)
    assert found == [-1 if number == 10 else number for number in WAITING]
    assert kept(path) == []  # the database is intact: nothing to set aside


async def test_a_batch_that_can_no_longer_be_reached_is_lost_alone_and_counted(path: Path) -> None:
    """The chain of overflow pages is broken: SQLite reports it only when the batch is read."""
    start = path.read_bytes().index(b'"n":30,') // PAGE_BYTES * PAGE_BYTES
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 8)
    found, spool, backlog = await use(path)
    assert sorted(set(WAITING) - set(found)) in ([10], [9, 10], [10, 11])
    assert len(kept(path)) == 1
    assert backlog.totals.dropped == 3 * (len(WAITING) - len(found))
    assert balanced(backlog)
    assert offset_of(spool) == 20


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "other bytes": lambda path: path.write_bytes(b"this was a database once" * 1000),
    "a directory": make_directory,
    "one page": lambda path: path.write_bytes(path.read_bytes()[:PAGE_BYTES]),
    "half a header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_file_with_nothing_left_in_it_is_set_aside_and_replaced_by_a_new_one(path: Path, damage: str) -> None:
    DAMAGE[damage](path)
    found, spool, _ = await waiting(path)
    assert found == []
    assert len(kept(path)) == 1
    assert spool.positions == {}
    assert spool.repeats_possible == {"http"}
    assert (await use(path))[0] == []


@pytest.mark.parametrize("cut", [1, PAGE_BYTES // 2, PAGE_BYTES, 5 * PAGE_BYTES, 20 * PAGE_BYTES])
async def test_a_truncated_file_keeps_everything_before_the_cut(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    found, spool, backlog = await use(path)
    assert set(found) <= {*WAITING, -1}
    assert len(found) >= len(WAITING) - (cut // PAGE_BYTES + 2)
    assert balanced(backlog)
    assert offset_of(spool) == 20


async def test_any_flipped_byte_is_survived_and_nothing_false_comes_back(path: Path) -> None:
    whole, dice = path.read_bytes(), random.Random(5)
    for _ in range(60):
        at, mask = dice.randrange(len(whole)), dice.randrange(1, 256)
        path.write_bytes(whole)
        for left in path.parent.glob("*-wal"):
            left.unlink()
        flip(path, at, mask)
        found, _, backlog = await use(path)
        real = [number for number in found if number >= 0]
        assert set(real) <= set(WAITING), at
        assert len(set(real)) >= len(WAITING) - 2, at
        assert balanced(backlog), at


async def test_a_missing_log_means_an_older_state_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    await fill(path, checkpoint=False)
    path.with_name("http.spool-wal").unlink()
    found, spool, backlog = await waiting(path)
    assert found == []
    assert spool.repeats_possible == {"http"}
    assert backlog.totals.resets == 1
    assert (await waiting(path))[1].repeats_possible == set()


async def test_a_log_of_garbage_means_an_older_state_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    await fill(path, checkpoint=False)
    log = path.with_name("http.spool-wal")
    log.write_bytes(random.Random(1).randbytes(log.stat().st_size))
    found, spool, _ = await use(path)
    assert found == []
    assert spool.repeats_possible == {"http"}


async def test_a_killed_forwarder_finds_everything_and_reports_nothing(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    await fill(path, checkpoint=False)
    found, spool, backlog = await waiting(path)
    assert (found, spool.repeats_possible, kept(path)) == (WAITING, set(), [])
    assert balanced(backlog)


async def test_a_directory_in_place_of_the_log_is_set_aside(path: Path) -> None:
    path.with_name("http.spool-wal").mkdir()
    found, _, _ = await use(path)
    assert found == WAITING


async def test_a_twin_shares_what_was_salvaged(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        for number in range(4):
            await accept(spool, number, original, twin)
    flip(path, 0)
    assert (await waiting(path))[0] == [0, 1, 2, 3]
    assert (await waiting(path, "pq-stream"))[0] == [0, 1, 2, 3]


async def test_a_stream_that_is_configured_no_more_keeps_its_batches_and_their_ids(tmp_path: Path) -> None:
    """Its rows are loaded, so that no new batch takes their ids, and their payloads stay."""
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        await accept(spool, 0, original, twin)
        await accept(spool, 1, twin)
    async with Spool(path) as spool:
        original = backlog_of(spool)
        await accept(spool, 2, original)
        notes = Notes()
        for row in list(original.rows):
            original.dead_letter(row, "test", "", notes)
        await spool.commit(notes)
    assert (await waiting(path, "pq-stream"))[0] == [0, 1]


async def test_an_interrupted_replacement_is_finished_by_the_next_open(path: Path) -> None:
    """A crash after the new file was complete: the next open moves it into place and keeps the old one."""
    shutil.copy(path, path.with_name("http.spool.ready"))
    path.write_bytes(b"damaged")
    path.with_name("http.spool-wal").write_bytes(b"damaged log")
    assert (await waiting(path))[0] == WAITING
    (aside,) = kept(path)
    assert aside.read_bytes() == b"damaged"
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"damaged log"


async def test_damage_met_while_running_is_repaired_by_the_next_open(path: Path) -> None:
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("DELETE FROM blobs WHERE id = ?", (backlog.rows[5].blob,))
        connection.close()
        with pytest.raises(SpoolCorrupt, match="is missing"):
            await spool.payload(backlog.rows[5])
        with pytest.raises(SpoolCorrupt):
            spool.raise_if_broken()
        with pytest.raises(SpoolCorrupt):
            await spool.commit(Notes())
    found, _, backlog = await waiting(path)
    assert found == [number for number in WAITING if number != 8]
    assert backlog.totals.dropped == 3
    assert balanced(backlog)
    assert len(kept(path)) == 1
    assert not path.with_name("http.spool.suspect").exists()
