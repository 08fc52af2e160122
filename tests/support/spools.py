"""Spools with real batches for tests: numbered records, positions, stamps, dead letters."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from logfwd.sources.position import FILE, Mark, Position
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Row, Run
from logfwd.spool.store import Spool
from streams.records import batch as recordbatch
from streams.records.batch import Codec, Packed

RECORDS_IN_A_BATCH = 3


def numbered(number: int, *, padding: int = 0) -> Packed:
    """Batch `number`: three records that contain it, so that the batch can be recognised anywhere."""
    values = [b'{"n":%d,"pad":"%s"}' % (number * 3 + part, b"x" * padding) for part in range(RECORDS_IN_A_BATCH)]
    payload = recordbatch.build(values, timestamp_ms=1_700_000_000_000 + number, codec=Codec.NONE)
    return Packed(payload, RECORDS_IN_A_BATCH, len(payload))


def number_of(payload: bytes | bytearray) -> int:
    """The number of a batch, from its payload; raises BatchCorrupt if it is damaged."""
    first = next(recordbatch.iterate(payload, max_bytes=1 << 24))
    return int((first.value or b"").split(b":")[1].split(b",")[0]) // RECORDS_IN_A_BATCH


def backlog_of(spool: Spool, stream: str = "http", *, drops: bool = False) -> Backlog:
    return spool.backlog(stream, max_bytes=1 << 30, drops_oldest=drops)


def position(offset: int) -> Position:
    """The position of a file, as its source stores it."""
    return Position(FILE, Mark(offset, 3, b"tail", b"detail").encode())


def offset_of(spool: Spool, key: str = "file") -> int:
    """The offset that a spool holds for a file."""
    mark = Mark.decode(spool.positions[key].value)
    assert mark is not None
    return mark.offset


def note_batch(spool: Spool, number: int, *backlogs: Backlog, padding: int = 0) -> tuple[Notes, list[Row]]:
    """A transaction that accepts batch `number` and moves the position past it."""
    notes, batch = Notes(), numbered(number, padding=padding)
    blob = spool.blobs.add(batch.payload, notes)
    rows = [row for backlog in backlogs for row in backlog.accept([batch], [blob], 0, 1.0, notes)]
    notes.put_positions({"file": position(number + 1)}, [])
    return notes, rows


async def accept(spool: Spool, number: int, *backlogs: Backlog, padding: int = 0) -> None:
    notes, rows = note_batch(spool, number, *backlogs, padding=padding)
    await spool.commit(notes)
    for row in rows:
        row.committed_at, row.payload = 1.0, None


async def grant(spool: Spool, backlog: Backlog, producer_id: int = 1000) -> Run:
    """Grant the head run a producer id and stamp its batches."""
    run, notes = backlog.head_run(), Notes()
    assert run is not None
    backlog.grant(run, Run(run.number, "cluster", "topic", "id", 0, producer_id, grant=b"grant"), notes)
    backlog.stamp(run, notes)
    await spool.commit(notes)
    return run


async def fill(path: Path, *, batches: int = 20, padding: int = 0, checkpoint: bool = True) -> None:
    """A spool as a forwarder leaves it: a stamped run, acknowledged batches, one dead letter, waiting batches.

    Of `batches`, 0 and 1 are acknowledged, 2 is a dead letter, the rest are waiting. Without a `checkpoint` the files
    are as after kill -9: the newest commits are in the log.
    """
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        for number in range(batches):
            await accept(spool, number, backlog, padding=padding)
            if number == 4:
                await grant(spool, backlog)
        notes = Notes()
        backlog.acknowledge(backlog.rows[1], notes)
        await spool.commit(notes)
        notes = Notes()
        backlog.dead_letter(backlog.rows[0], "too_large", "the topic takes less", notes)
        await spool.commit(notes)
        if not checkpoint:
            copy_files(path, path.with_name("killed"))
    if not checkpoint:
        for suffix in ("", "-wal"):
            path.with_name("killed" + suffix).rename(path.with_name(path.name + suffix))


def copy_files(path: Path, to: Path) -> None:
    """Copy the database and its log as they are now: what a killed process leaves."""
    for suffix in ("", "-wal"):
        part = path.with_name(path.name + suffix)
        if part.is_file():
            to.with_name(to.name + suffix).write_bytes(part.read_bytes())


async def waiting(path: Path, stream: str = "http") -> tuple[list[int], Spool, Backlog]:
    """Open a spool, read and check every waiting batch, and return their numbers."""
    async with Spool(path) as spool:
        backlog = backlog_of(spool, stream)
        return [number_of(await spool.payload(row)) for row in backlog.rows], spool, backlog


async def records_of(spool: Spool, rows: Iterable[Row]) -> list[int]:
    """The numbers of all records of these batches."""
    return [
        int((record.value or b"").split(b":")[1].split(b",")[0])
        for row in rows
        for record in recordbatch.iterate(await spool.payload(row), max_bytes=1 << 24)
    ]


def dead_letters(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [number_of(payload) for (payload,) in connection.execute("SELECT payload FROM dead_letters ORDER BY id")]
    finally:
        connection.close()


def balanced(backlog: Backlog) -> bool:
    """True if every accepted record is accounted for."""
    totals = backlog.totals
    gone = totals.acknowledged + totals.dropped + totals.dead_lettered
    return totals.accepted == gone + backlog.waiting_records


def flip(path: Path, at: int, mask: int = 0xFF) -> None:
    """Flip bits of one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))
