"""A spool of format version 1, with everything that a spool can hold, and what must come back from it.

`tests/data/spool_v1/http.spool` was written by the code of commit dac3a97, run from the root of the repository:

    async def accept(spool, number, *backlogs):
        notes, batch = Notes(), tests.support.spools.numbered(number)
        blob = spool.blobs.add(batch.payload, notes)
        for backlog in backlogs:
            backlog.accept([batch], [blob], 1, 1.0, notes)              # one invalid line with each batch
        spool.blobs.discard_unused(blob, notes)
        place = Place(4711, number + 1, 3, b"tail-hash-of-16b", 64, b"head-hash-of-16b")
        detail = detail_of(place, "/var/log/http.log", "/var/log/http.log", 1_700_000_000_000)
        live, rotated = Mark(number + 1, 3, b"tail-hash-of-16b", detail), Mark(7, 0, b"", detail)
        notes.put_positions({"http-live": live, "http-rotated": rotated}, [])
        await spool.commit(notes)

    for boot in range(2):
        async with Spool(path) as spool:
            http = spool.backlog("http", max_bytes=1 << 30, drops_oldest=False)
            twin = spool.backlog("pq-stream", max_bytes=1000, drops_oldest=True)
            for number in range(boot * 8, boot * 8 + 8):
                await accept(spool, number, http, twin)
                if boot == 0 and number == 4:                           # batches 5 to 7 are stamped as they come
                    http.grant(http.head_run(), Run(1, "cluster", "topic", "id", 3, 1000, grant=b"grant"), notes)
                    http.stamp(http.head_run(), notes)
            if boot == 0:
                http.acknowledge(http.rows[1], notes)                   # batches 0 and 1
                http.dead_letter(http.rows[0], "too_large", "the topic takes less", notes)  # batch 2
                http.split(http.rows[0], recordbatch.halves(…), notes)  # batch 3
                http.reset(http.runs[1], notes, new_producer=False)

(`notes` being new and committed each time), then closed.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from logfwd.sources.position import FILE, Mark, Position
from logfwd.spool.file import reader
from logfwd.spool.rows import Totals
from logfwd.spool.store import Spool
from logfwd.spool.verify import verify
from tests.support.spools import backlog_of, balanced, copy_files, dead_letters, records_of

SAMPLE = Path(__file__).parent.parent / "data" / "spool_v1" / "http.spool"
DETAIL = (
    b"\x96\xc4\x11/var/log/http.log\xc4\x11/var/log/http.log"
    b"\xcd\x12g@\xc4\x10head-hash-of-16b\xcf\x00\x00\x01\x8b\xcf\xe5h\x00"
)
FORWARDER_ID = "db722e5aa941423581aa10a5753297cc"


def closed(directory: Path) -> Path:
    """The spool as it was closed."""
    return Path(shutil.copyfile(SAMPLE, directory / "http.spool"))


def killed(directory: Path) -> Path:
    """The same spool as kill -9 leaves it: marked as open, its newest change only in the write-ahead log."""
    path = closed(directory)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'open'")
    copy_files(path, path.with_name("killed"))
    connection.close()
    for suffix in ("", "-wal"):
        path.with_name("killed" + suffix).rename(path.with_name(path.name + suffix))
    return path


async def check(path: Path, *, damaged: bool = False) -> None:
    async with Spool(path) as spool:
        http, twin = backlog_of(spool), backlog_of(spool, "pq-stream", drops=True)
        assert (spool.forwarder_id, spool.repeats_possible) == (FORWARDER_ID, set())
        assert await records_of(spool, http.rows) == list(range(9, 48))
        assert await records_of(spool, twin.rows) == list(range(27, 48))
        assert [row.base_sequence for row in http.rows] == [0, 1, 3, 6, 9, 12, *[None] * 8]
        first, second = http.runs.values()
        assert (first.producer_id, first.producer_epoch, first.grant) == (1000, 1, b"grant")
        assert (first.cluster_id, first.topic, first.topic_id, first.partition) == ("cluster", "topic", "id", 3)
        assert (first.next_sequence, first.last_acknowledged_sequence) == (15, -1)
        assert not second.granted
        assert http.totals == Totals(48, 16, acknowledged=6, dead_lettered=3, resets=1)
        assert twin.totals == Totals(48, 16, dropped=27)
        assert balanced(http)
        assert balanced(twin)
        assert spool.positions == {
            "http-live": Position(FILE, Mark(16, 3, b"tail-hash-of-16b", DETAIL).encode()),
            "http-rotated": Position(FILE, Mark(7, 0, b"", DETAIL).encode()),
        }
    assert dead_letters(path) == [2]
    if not damaged:
        with contextlib.closing(reader(path)) as connection:
            assert verify(connection).problems == []
        assert not list(path.parent.glob("*.damaged-*"))


def witnesses(path: Path) -> tuple[int, str]:
    """The two places that name the version: a program that knows only an older one looks at both."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (header,) = connection.execute("PRAGMA user_version").fetchone()
        (meta,) = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    return header, meta
