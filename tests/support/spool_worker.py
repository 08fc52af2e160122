"""A process that uses a spool in every way and prints on stdout what may be on disk and what is.

`handed N`: records below N may be on disk from now on. `accepted N`: they are. `leaving N`: records below N may have
been acknowledged, or have become dead letters, from now on. Arguments: PATH [only-open].
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from logfwd.backlog import Backlog
from logfwd.spool import Spool
from logfwd.spool_notes import Notes
from streams import recordbatch
from streams.recordbatch import Packed
from streams.telemetry import logs
from tests.support.spools import RECORDS_IN_A_BATCH, backlog_of, grant, note_batch

BATCHES = 20


def say(word: str, records: int) -> None:
    os.write(1, f"{word} {records}\n".encode())


async def work(path: Path) -> None:
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        twin.max_bytes = 40_000
        small_log = Notes()
        small_log.statements.append(("PRAGMA wal_autocheckpoint = 8", ()))  # so that the run includes checkpoints
        await spool.commit(small_log)
        for number in range(0, BATCHES, 2):
            say("handed", (number + 2) * RECORDS_IN_A_BATCH)
            commits = [note_batch(spool, one, original, twin, padding=4000) for one in (number, number + 1)]
            for done in [spool.commit(notes) for notes, _ in commits]:
                await done
            say("accepted", (number + 2) * RECORDS_IN_A_BATCH)
            for row in [row for _, rows in commits for row in rows]:
                row.committed_at, row.payload = 1.0, None
            if number == 2:
                await grant(spool, original)
            elif number > 2:
                await change(spool, original, number)


async def only_open(path: Path) -> None:
    async with Spool(path):
        pass


async def change(spool: Spool, backlog: Backlog, number: int) -> None:
    """Split one batch, move one to the dead letters, reset once; otherwise acknowledge."""
    head, notes = backlog.rows[0], Notes()
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
    asyncio.run((only_open if "only-open" in sys.argv else work)(Path(sys.argv[1])))
