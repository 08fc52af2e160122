"""Whether a spool is intact: SQLite's own check, references between tables, the CRC of every batch, and the totals."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

import msgspec

from logfwd.spool.rows import Row, Run, Totals
from logfwd.spool.schema import rows
from streams.errors import BatchCorrupt, SpoolCorrupt
from streams.records import batch as recordbatch

MOST_PROBLEMS = 100


class Report(msgspec.Struct):
    """What was checked, and every problem found (at most MOST_PROBLEMS from SQLite's own check)."""

    batches: int = 0
    blobs: int = 0
    dead_letters: int = 0
    problems: list[str] = []


def verify(connection: sqlite3.Connection) -> Report:
    """Read everything once."""
    report = Report()
    for check in (_database, _payloads, _references, _dead_letters, *map(_shapes_of, ("meta", "positions", "keys"))):
        try:
            report.problems += check(connection, report)
        except (sqlite3.Error, SpoolCorrupt, OverflowError, UnicodeDecodeError) as error:
            report.problems.append(f"cannot be read to the end: {error}")
    return report


def _database(connection: sqlite3.Connection, _: Report) -> Iterator[str]:
    for (text,) in connection.execute(f"PRAGMA quick_check({MOST_PROBLEMS})"):
        if text != "ok":
            yield f"the database is damaged: {text}"


def _shapes_of(table: str) -> Callable[[sqlite3.Connection, Report], Iterator[str]]:
    """A check that every row of a table has the right types."""

    def check(connection: sqlite3.Connection, _: Report) -> Iterator[str]:
        for _row in rows(connection, table):
            yield from ()

    return check


def _payloads(connection: sqlite3.Connection, report: Report) -> Iterator[str]:
    """Check every payload against its CRC and against the rows that refer to it."""
    # both in the order of payloads, side by side: there may be millions, and `batches` has no index of them
    owned = groupby(connection.execute("SELECT blob, id, record_count, size FROM batches ORDER BY blob"), itemgetter(0))
    owner, owners = next(owned, (None, iter(())))
    for (blob,) in connection.execute("SELECT id FROM blobs ORDER BY id"):
        report.blobs += 1
        while isinstance(owner, int) and owner < blob:
            owner, owners = next(owned, (None, iter(())))
        own = list(owners) if owner == blob else []
        try:
            (payload,) = connection.execute("SELECT payload FROM blobs WHERE id = ?", (blob,)).fetchone()
            header = recordbatch.check(payload)
        except (BatchCorrupt, sqlite3.Error, TypeError) as error:
            yield f"payload {blob} is damaged: {error}"
            continue
        if not own:
            yield f"payload {blob} belongs to no batch"
        for _, row_id, count, size in own:
            if (count, size) != (header.record_count, len(payload)):
                yield (
                    f"batch {row_id} is listed with {count} records and {size} bytes, "
                    f"but its payload has {header.record_count} and {len(payload)}"
                )


def _references(connection: sqlite3.Connection, report: Report) -> Iterator[str]:
    """Check that batches have payloads and runs, that stamps ascend, and that the totals balance."""
    for row_id, stream, blob in connection.execute(
        "SELECT id, stream, blob FROM batches WHERE blob NOT IN (SELECT id FROM blobs)"
    ):
        yield f"payload {blob} of batch {row_id} of {stream} is missing"
    runs = {(stream, rest[0]): Run(*rest) for stream, *rest in rows(connection, "runs")}
    waiting: Counter[str] = Counter()
    before: tuple[str, Row] | None = None
    for row_id, stream, *rest in rows(connection, "batches", "ORDER BY stream, run, id"):
        row = Row(row_id, *rest)
        report.batches += 1
        waiting[stream] += row.record_count
        run = runs.get((stream, row.run))
        previous = before[1] if before is not None and (before[0], before[1].run) == (stream, row.run) else None
        if run is None:
            yield f"batch {row.id} of {stream} belongs to run {row.run}, which does not exist"
        elif fault := _stamp_fault(run, previous, row):
            yield f"batch {row.id} of {stream} {fault}"
        before = stream, row
    for stream, *sums in rows(connection, "totals"):
        if fault := Totals(*sums).imbalance(stream, waiting[stream]):
            yield fault


def _stamp_fault(run: Run, previous: Row | None, row: Row) -> str:
    if row.base_sequence is None:
        return ""
    if previous is not None and previous.base_sequence is None:
        return "is stamped, but the batch before it is not"
    after = run.last_acknowledged_sequence if previous is None else previous.last_sequence
    if row.base_sequence <= after:
        return f"starts at sequence {row.base_sequence}, but sequences up to {after} were already used"
    if row.last_sequence >= run.next_sequence:
        return f"ends at sequence {row.last_sequence}, but the next sequence of its run is {run.next_sequence}"
    return ""


def _dead_letters(connection: sqlite3.Connection, report: Report) -> Iterator[str]:
    for row_id, stream, _, code, _, _, count, payload in rows(connection, "dead_letters"):
        report.dead_letters += 1
        if code == "rotten":
            continue  # being damaged is why it is a dead letter
        try:
            if recordbatch.check(payload).record_count != count:
                yield f"dead letter {row_id} of {stream} does not have the {count} records that are listed"
        except BatchCorrupt as error:
            yield f"dead letter {row_id} of {stream} is damaged: {error}"
