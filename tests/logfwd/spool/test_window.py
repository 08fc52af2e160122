"""A backlog of which only the first batches are in memory: nothing that can be seen of it differs."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from logfwd.spool.backlog import Backlog
from logfwd.spool.beyond import WINDOW_ROWS
from logfwd.spool.file import reader
from logfwd.spool.notes import Notes
from logfwd.spool.rows import ROW_BYTES, Run
from logfwd.spool.store import Spool
from logfwd.spool.verify import verify
from streams.errors import SpoolCorrupt
from streams.records import batch as recordbatch
from streams.records.batch import Packed
from tests.support.installation import eventually
from tests.support.spools import accept, balanced, grant, number_of, numbered, records_of
from tests.support.window import small


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)


def backlog_of(spool: Spool, stream: str = "http", *, batches: int = 10_000, drops: bool = False) -> Backlog:
    """One that has room for so many batches of `numbered`."""
    size = len(numbered(99).payload) + ROW_BYTES
    return spool.backlog(stream, max_bytes=batches * size + size // 2, drops_oldest=drops)


def problems(path: Path) -> list[str]:
    with contextlib.closing(reader(path)) as connection:
        return verify(connection).problems


async def settle(spool: Spool) -> None:
    """Until what was asked for has been read: a question is answered after a commit that follows it."""
    for _ in range(3):
        await spool.commit(Notes())


async def drain(spool: Spool, backlog: Backlog) -> list[int]:
    """Grant, stamp and acknowledge everything; returns the batches' numbers in that order."""
    done: list[int] = []
    while backlog.waiting_batches:
        await settle(spool)
        run = backlog.head_run()
        assert run is not None
        if not run.granted:
            await grant(spool, backlog)
        notes = Notes()
        backlog.stamp(run, notes)
        await spool.commit(notes)
        row = backlog.rows[0]
        done.append(number_of(await spool.payload(row)))
        notes = Notes()
        backlog.acknowledge(row, notes)
        backlog.forget_finished_runs(notes)
        spool.ride_along(notes)
    return done


async def test_a_long_backlog_keeps_its_order_and_its_sums_and_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    for boot in range(3):
        async with Spool(path) as spool:
            backlog = backlog_of(spool)
            for number in range(boot * 10, boot * 10 + 10):
                await accept(spool, number, backlog)
            assert 4 <= len(backlog.rows) <= 6
            assert backlog.waiting_batches == 10 * boot + 10
            assert balanced(backlog)
            assert backlog.waiting_bytes == sum(len(numbered(number).payload) for number in range(10 * boot + 10))
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        assert (backlog.waiting_batches, len(backlog.runs)) == (30, 3)
        await accept(spool, 30, backlog)
        assert await drain(spool, backlog) == list(range(31))
        assert backlog.waiting_bytes == backlog.waiting_records == 0
    assert problems(path) == []


async def test_the_full_window_is_as_large_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with Spool(tmp_path / "http.spool") as spool:
        backlog, notes = backlog_of(spool), Notes()
        for number in range(3 * WINDOW_ROWS):
            batch = numbered(number)
            backlog.accept([batch], [spool.blobs.add(batch.payload, notes)], 0, float(number), notes)
        await spool.commit(notes)
        assert len(backlog.rows) == WINDOW_ROWS
    async with Spool(tmp_path / "http.spool") as spool:
        assert await drain(spool, backlog_of(spool)) == list(range(3 * WINDOW_ROWS))


async def test_a_batch_that_comes_back_into_memory_knows_about_when_it_was_sealed(tmp_path: Path) -> None:
    async with Spool(tmp_path / "http.spool") as spool:
        backlog, notes = backlog_of(spool), Notes()
        for number in range(10):
            batch = numbered(number)
            backlog.accept([batch], [spool.blobs.add(batch.payload, notes)], 0, 100.0 + number, notes)
        await spool.commit(notes)
        for row in backlog.rows:
            row.committed_at = 1.0
        seen = list[float | None]()
        while backlog.waiting_batches:
            assert backlog.oldest_sealed_at == 100.0 + len(seen)
            assert backlog.rows[0].committed
            seen.append(backlog.rows[0].sealed_at)
            notes = Notes()
            backlog.dead_letter(backlog.rows[0], "test", "", notes)
            await spool.commit(notes)
            await settle(spool)
        assert seen == [100.0 + number for number in range(10)]


async def test_of_a_long_backlog_the_oldest_are_dropped_batch_by_batch_then_a_segment_at_a_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        twin = backlog_of(spool, "pq-stream", batches=20, drops=True)
        for number in range(40):
            await accept(spool, number, twin)
        assert (twin.waiting_batches, twin.totals.dropped) == (20, 60)
        notes, big = Notes(), numbered(40, padding=3 * ROW_BYTES)  # takes the place of several, more than are in memory
        twin.accept([big], [spool.blobs.add(big.payload, notes)], 0, 1.0, notes)
        await spool.commit(notes)
        assert twin.room_bytes >= -ROW_BYTES
        assert balanced(twin)
        left = twin.waiting_batches
        twin.max_bytes = 1 << 30
        assert await drain(spool, twin) == list(range(41 - left, 41))
    assert problems(path) == []


async def test_a_dropped_segment_keeps_the_payloads_that_another_stream_needs(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, "pq-stream", batches=3, drops=True)
        for number in range(20):
            await accept(spool, number, original, twin)
        assert twin.waiting_batches <= 3
        assert await drain(spool, original) == list(range(20))
        assert problems(path) == []
        assert (await drain(spool, twin))[-1] == 19
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,)


async def test_payloads_of_a_twin_that_is_not_in_use_stay_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        streams = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        for number in range(12):
            await accept(spool, number, *streams)
    async with Spool(path) as spool:
        assert await drain(spool, backlog_of(spool)) == list(range(12))
    assert problems(path) == []
    async with Spool(path) as spool:
        assert await drain(spool, backlog_of(spool, "pq-stream")) == list(range(12))


async def test_what_is_dropped_while_it_is_being_read_does_not_come_back(tmp_path: Path) -> None:
    async with Spool(tmp_path / "http.spool") as spool:
        backlog = backlog_of(spool, batches=12, drops=True)
        for number in range(12):
            await accept(spool, number, backlog)
        notes = Notes()
        for row in list(backlog.rows):
            backlog.dead_letter(row, "test", "", notes)
        read = spool.commit(notes)  # asks for the next ones
        notes, big = Notes(), numbered(12, padding=4 * ROW_BYTES)
        backlog.accept([big], [spool.blobs.add(big.payload, notes)], 0, 1.0, notes)
        assert backlog.totals.dropped > 0
        await spool.commit(notes)
        await read
        backlog.max_bytes = 1 << 30
        left = backlog.waiting_batches
        assert await drain(spool, backlog) == list(range(13 - left, 13))


async def test_batches_that_are_not_what_was_counted_break_the_spool(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        backlog, woken = backlog_of(spool), []
        spool.on_read["http"] = lambda: woken.append(True)
        for number in range(10):
            await accept(spool, number, backlog)
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE batches SET record_count = record_count + 1 WHERE blob = 6")
        notes = Notes()
        for row in list(backlog.rows):
            backlog.dead_letter(row, "test", "", notes)
        await spool.commit(notes)
        with contextlib.suppress(SpoolCorrupt):
            await settle(spool)
        with pytest.raises(SpoolCorrupt, match="were expected"):
            spool.raise_if_broken()
        await eventually(lambda: woken)  # whoever waits for them has to look


@pytest.mark.parametrize("column", ["run", "blob", "record_count", "size", "base_sequence"])
async def test_a_wrong_value_in_a_batch_that_is_not_in_memory_is_found_when_the_file_is_opened(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        for number in range(20):
            await accept(spool, number, backlog)
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute(f"UPDATE batches SET {column} = x'00' WHERE blob = 15")
    async with Spool(path) as spool:
        assert len(set(tmp_path.glob("*.damaged-*")) - set(tmp_path.glob("*.damaged-*-*"))) == 1
        waiting = backlog_of(spool)
        assert (waiting.waiting_batches, waiting.totals.dropped) == (20, 0)


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_to_two_streams_is_what_a_list_of_their_batches_says(tmp_path: Path, seed: int) -> None:
    """Accept, acknowledge, halve, set aside, reset, drop, and open again, in any order."""
    dice, path = random.Random(seed), tmp_path / "http.spool"
    expected: dict[str, list[int]] = {"http": [], "pq-stream": []}
    done: Counter[str] = Counter()
    number = 0
    for _ in range(4):
        async with Spool(path) as spool:
            backlogs = [backlog_of(spool), backlog_of(spool, "pq-stream", batches=15, drops=True)]
            for _ in range(dice.randrange(60)):
                backlog = dice.choice(backlogs)
                match dice.choice(["accept"] * 3 + ["acknowledge"] * 2 + ["halve", "dead", "reset", "settle"]):
                    case "accept":
                        await accept(spool, number, *backlogs)
                        for stream in expected:
                            expected[stream] += range(3 * number, 3 * number + 3)
                        number += 1
                        for one in backlogs:  # what was dropped is the oldest of what is not stamped
                            stamps = sum(row.record_count for row in one.rows if row.base_sequence is not None)
                            gone = len(expected[one.stream]) - one.waiting_records
                            del expected[one.stream][stamps : stamps + gone]
                    case "settle":
                        await settle(spool)
                    case action:
                        await act(spool, backlog, action, expected[backlog.stream], done)
            for backlog in backlogs:
                assert backlog.waiting_records == len(expected[backlog.stream])
                assert balanced(backlog)
        assert problems(path) == []
    async with Spool(path) as spool:
        for stream, records in expected.items():
            backlog, left = backlog_of(spool, stream), list[int]()
            while backlog.waiting_batches:
                await settle(spool)
                rows, notes = list(backlog.rows), Notes()
                left += await records_of(spool, rows)
                for row in rows:
                    backlog.dead_letter(row, "test", "", notes)
                await spool.commit(notes)
            assert left == records
    assert problems(path) == []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,)


async def act(spool: Spool, backlog: Backlog, action: str, records: list[int], done: Counter[str]) -> None:
    """Do one thing to the first batch of a backlog, and to the list of its records."""
    run, notes = backlog.head_run(), Notes()
    if run is None:
        return
    if not run.granted:
        backlog.grant(run, Run(run.number, "c", "t", "i", 0, 1000, grant=b"g"), notes)
    backlog.stamp(run, notes)
    row = backlog.rows[0]
    if action == "acknowledge":
        backlog.acknowledge(row, notes)
        del records[: row.record_count]
    elif action == "dead":
        backlog.dead_letter(row, "test", "", notes)
        del records[: row.record_count]
    elif action == "reset":
        backlog.reset(run, notes, new_producer=done["reset"] % 2 == 1)
    elif (both := recordbatch.halves(await spool.payload(row))) is not None:
        first, second = (Packed(half, recordbatch.parse_header(half).record_count, len(half)) for half in both)
        backlog.split(row, (first, second), notes)
    done[action] += 1
    backlog.forget_finished_runs(notes)
    await spool.commit(notes)
