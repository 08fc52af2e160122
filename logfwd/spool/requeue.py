"""Puts a stream's dead letters back into its spool, or its first batch aside; no forwarder may have it open."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from logfwd.spool.file import reader
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Row
from logfwd.spool.store import Spool
from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch


async def requeue(path: Path, stream: str, letter: int | None) -> tuple[int, list[str]]:
    """Requeue all dead letters, or one; returns the number of records, and why each damaged letter stays.

    Each is moved in a transaction of its own, so an interruption moves none twice. All go into one new run.
    """
    done, damaged = 0, []
    async with Spool(path) as spool:
        backlog = spool.backlog(stream, max_bytes=sys.maxsize, drops_oldest=False)
        with contextlib.closing(reader(path)) as connection:
            letters = [
                found
                for (found,) in connection.execute("SELECT id FROM dead_letters WHERE stream = ?", (stream,))
                if letter in (None, found)
            ]
            for number in letters:
                (payload,) = connection.execute("SELECT payload FROM dead_letters WHERE id = ?", (number,)).fetchone()
                try:
                    count = recordbatch.check(payload).record_count
                except BatchCorrupt as error:
                    damaged.append(f"dead letter {number} is damaged and stays: {error}")
                    continue
                notes = Notes()
                blob = spool.blobs.add(payload, notes)
                backlog.requeue(recordbatch.Packed(payload, count, len(payload)), blob, notes)
                notes.delete_dead_letter(number)
                await spool.commit(notes)
                done += count
    return done, damaged


async def set_aside(path: Path, stream: str, text: str) -> Row | None:
    """Make the batch that a stream would send first a dead letter; None if no batch waits.

    The gap that a stamped one leaves in its run is found, and closed by a reset, when the forwarder sends the next.
    """
    async with Spool(path) as spool:
        backlog = spool.backlog(stream, max_bytes=sys.maxsize, drops_oldest=False)
        if not backlog.rows:
            return None
        row, notes = backlog.rows[0], Notes()
        backlog.dead_letter(row, "set_aside", text, notes)
        await spool.commit(notes)
        return row
