"""A process that uses a spool in every way and prints on stdout what may be on disk and what is.

`handed N`: records below N may be on disk from now on. `accepted N`: they are. `leaving N`: records below N may have
been acknowledged, or have become dead letters, from now on. Arguments: PATH
[with-checkpoints | small-window | only-open | become-smaller].
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import logfwd.spool.committer
import logfwd.spool.shrink
from logfwd.sources.keys import Key, key_hash
from logfwd.spool.backlog import Backlog
from logfwd.spool.file import reader
from logfwd.spool.notes import Notes
from logfwd.spool.schema import PAGE_BYTES
from logfwd.spool.shrink import reusable_bytes
from logfwd.spool.store import Spool
from streams.records import batch as recordbatch
from streams.records.batch import Packed
from streams.telemetry import logs
from tests.support.spools import RECORDS_IN_A_BATCH, backlog_of, grant, note_batch
from tests.support.window import make_small

BATCHES = 20
BATCHES_IN_A_REQUEST = 4


def say(word: str, records: int) -> None:
    os.write(1, f"{word} {records}\n".encode())


async def work(path: Path) -> None:
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        twin.max_bytes = 40_000
        if "small-window" in sys.argv:
            make_small()
            twin.max_bytes = 80_000
        if "with-checkpoints" in sys.argv:
            small_log = Notes()
            small_log.statements.append(("PRAGMA wal_autocheckpoint = 8", ()))
            await spool.commit(small_log)
        for number in range(0, BATCHES, 2):
            say("handed", (number + 2) * RECORDS_IN_A_BATCH)
            commits = [note_batch(spool, one, original, twin, padding=4000) for one in (number, number + 1)]
            for one, (notes, _) in zip((number, number + 1), commits, strict=True):
                put_request(spool, one, notes)
            for done in [spool.commit(notes) for notes, _ in commits]:
                await done
            say("accepted", (number + 2) * RECORDS_IN_A_BATCH)
            for row in [row for _, rows in commits for row in rows]:
                row.committed_at, row.payload = 1.0, None
            if number == 2:
                await grant(spool, original)
            elif number > 2:
                await change(spool, original, number)


def request_hash(request: int) -> bytes:
    return key_hash("http", "client", b"%d" % request)


def put_request(spool: Spool, number: int, notes: Notes) -> None:
    """Note how much of a request is durable with batch `number`; each request has BATCHES_IN_A_REQUEST batches."""
    request, part = divmod(number, BATCHES_IN_A_REQUEST)
    end = (number + 1) * RECORDS_IN_A_BATCH
    total = end if part == BATCHES_IN_A_REQUEST - 1 else None
    spool.keys.put(request_hash(request), Key(end, total, end, 0, b"digest", 4e9), notes)


async def only_open(path: Path) -> None:
    async with Spool(path):
        pass


async def become_smaller(path: Path) -> None:
    """Stay idle until an upgraded file was rewritten and free pages were given back."""
    logfwd.spool.committer.IDLE_SECONDS = 0.01
    logfwd.spool.shrink.KEEP_FREE_BYTES = 0
    logfwd.spool.shrink.STEP_BYTES = 4 * PAGE_BYTES
    async with Spool(path):
        with contextlib.closing(reader(path)) as connection:
            while reusable_bytes(connection) or connection.execute("PRAGMA auto_vacuum").fetchone() != (2,):
                await asyncio.sleep(0.01)


async def change(spool: Spool, backlog: Backlog, number: int) -> None:
    """Split one batch, move one to the dead letters, reset once; otherwise acknowledge."""
    head, notes = backlog.rows[0], Notes()
    if head.base_sequence is None:  # it was not in memory when the run was granted
        backlog.stamp(backlog.runs[head.run], notes)
        await spool.commit(notes)
        notes = Notes()
    if number not in (6, 12):
        say("leaving", backlog.totals.acknowledged + backlog.totals.dead_lettered + head.record_count)
    if number == 6:
        halves = recordbatch.halves(await spool.payload(head))
        assert halves is not None
        first, second = (Packed(half, recordbatch.parse_header(half).record_count, len(half)) for half in halves)
        backlog.split(head, (first, second), notes)
        await spool.commit(notes)
    elif number == 10:
        backlog.dead_letter(head, "too_large", "", notes)
        await spool.commit(notes)
    elif number == 12:
        backlog.reset(backlog.runs[head.run], notes, new_producer=False)
        await spool.commit(notes)
    else:
        backlog.acknowledge(head, notes)
        spool.ride_along(notes)


if __name__ == "__main__":
    logs.configure(level="error")
    commands = {"only-open": only_open, "become-smaller": become_smaller}
    asyncio.run(commands.get(sys.argv[-1], work)(Path(sys.argv[1])))
