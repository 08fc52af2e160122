"""Reads a spool's waiting batches: of each stream the first as rows, the others as segments (`beyond.py`).

SQLite adds the others up, a thousand at a time, and checks every value; so a start costs a third of a microsecond for a
batch, and no memory. That takes few aggregates where a range holds what nearly all hold: batches that were never
stamped, of the streams that its first ones are of, with payloads that follow each other. Whether it does, their number
tells, and that in SQLite only a sum of integers is an integer. Elsewhere every value is looked at by itself.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from logfwd.spool.beyond import WINDOW_ROWS, Beyond, Segment
from logfwd.spool.rows import ROW_ID_STEP, Row
from logfwd.spool.schema import rows
from streams.errors import SpoolCorrupt

BUCKET_IDS = 1000 * ROW_ID_STEP
"""Batches are added up by ranges of so many row ids."""

_VALID = " AND ".join(
    (
        "typeof(stream) = 'text'",
        *(f"typeof({name}) = 'integer' AND {name} >= 1" for name in ("run", "blob", "record_count", "size")),
        "(base_sequence IS NULL OR typeof(base_sequence) = 'integer' AND base_sequence >= 0)",
    )
)
_SUMS = (
    "SELECT stream, run, min(id), max(id), min(blob), max(blob), count(*), sum(record_count), sum(size), "  # noqa: S608
    f"count(base_sequence), sum({_VALID}) FROM batches WHERE id >= ? AND id < ? GROUP BY stream, run"
)

_RANGE = "FROM batches WHERE id >= ? AND id < ?"
_COUNT = f"SELECT count(*) {_RANGE}"
_OWNERS = f"SELECT DISTINCT stream, run FROM (SELECT stream, run {_RANGE} ORDER BY id LIMIT 8)"  # noqa: S608
_FIRST = f"SELECT id, blob {_RANGE} AND stream = ? AND run = ? ORDER BY id LIMIT 1"
_LAST = _FIRST.replace("ORDER BY id", "ORDER BY id DESC")
_PLAIN_SUMS = (
    f"SELECT count(*), sum(record_count), sum(size), sum(blob) {_RANGE} AND stream = ? AND run = ? "
    "AND base_sequence IS NULL AND blob BETWEEN ? AND ? AND record_count >= 1 AND size >= 1"
)

Sums = tuple[str, int, int, int, int, int, int, int, int, int]
"""Of a stream and run: these two, first and last row id, first and last blob; batches, records, bytes, stamped ones."""


class Waiting(msgspec.Struct):
    """A stream's waiting batches."""

    rows: list[Row] = []
    beyond: Beyond = msgspec.field(default_factory=Beyond)

    @property
    def size(self) -> int:
        """Bytes of their payloads."""
        return sum(part.size for part in (*self.rows, *self.beyond))

    @property
    def records(self) -> int:
        """Of all of them."""
        return sum(row.record_count for row in self.rows) + sum(segment.records for segment in self.beyond)


def read_waiting(connection: sqlite3.Connection) -> dict[str, Waiting]:
    """The waiting batches of every stream; SpoolCorrupt for values that no spool can contain."""
    segments: dict[str, list[Segment]] = defaultdict(list)
    stamped: set[Segment] = set()
    for stream, *found, stamps in _buckets(connection):
        segment = Segment(*found)  # type: ignore[arg-type]
        segments[stream] += [segment] if _has_consecutive_blobs(segment) else _cut(connection, stream, segment)
        if stamps:
            stamped.add(segments[stream][-1])
    return {stream: _first_as_rows(connection, stream, found, stamped) for stream, found in segments.items()}


def _buckets(connection: sqlite3.Connection) -> Iterator[Sums]:
    """The sums of each stream and run in each range of row ids, in order."""
    end = -1 << 63
    while (first := connection.execute("SELECT min(id) FROM batches WHERE id >= ?", (end,)).fetchone()[0]) is not None:
        if first < 0:
            raise SpoolCorrupt(f"invalid row in batches: the id {first}")
        end = (first // BUCKET_IDS + 1) * BUCKET_IDS
        if (plain := _plain_sums(connection, first, end)) is not None:
            yield from plain
            continue
        for *sums, valid in connection.execute(_SUMS, (first, end)):
            if valid != sums[6]:
                list(rows(connection, "batches", "WHERE id >= ? AND id < ?", first, end))  # says which value it is
                raise SpoolCorrupt(f"invalid row in batches, with an id between {first} and {end - 1}")
            yield tuple(sums)


def _plain_sums(connection: sqlite3.Connection, first: int, end: int) -> list[Sums] | None:
    """The sums of a range of usual batches; None if something in it is unusual, or wrong."""
    found: list[Sums] = []
    (left,) = connection.execute(_COUNT, (first, end)).fetchone()
    for stream, run in connection.execute(_OWNERS, (first, end)).fetchall():
        if type(stream) is not str or type(run) is not int:
            return None
        ends = [connection.execute(end_of, (first, end, stream, run)).fetchone() for end_of in (_FIRST, _LAST)]
        if None in ends:  # found in one direction and not in the other
            return None
        (first_id, first_blob), (last_id, last_blob) = ends
        values = first, end, stream, run, first_blob, last_blob
        count, *sums = connection.execute(_PLAIN_SUMS, values).fetchone()
        if any(type(value) is not int for value in (first_blob, last_blob, *sums)):
            return None
        records, size, blobs = sums
        if min(run, first_blob) < 1 or 2 * blobs != (first_blob + last_blob) * count:
            return None
        found.append((stream, run, first_id, last_id, first_blob, last_blob, count, records, size, 0))
        left -= count
    return found if not left else None


def _has_consecutive_blobs(segment: Segment) -> bool:
    return segment.last_blob - segment.first_blob + 1 == segment.rows


def _cut(connection: sqlite3.Connection, stream: str, segment: Segment) -> Beyond:
    """The same batches as several segments, where their blobs are not consecutive: after halving or salvage."""
    pieces = Beyond()
    for row in read_segment(connection, stream, segment):
        pieces.append(row)
    return pieces


def _first_as_rows(
    connection: sqlite3.Connection, stream: str, segments: list[Segment], stamped: set[Segment]
) -> Waiting:
    """Rows up to the last that is stamped, which are few, and at least WINDOW_ROWS; the rest stays segments."""
    segments.sort(key=lambda segment: (segment.run, segment.first_id))
    waiting, left = Waiting(), sum(segment in stamped for segment in segments)
    for index, segment in enumerate(segments):
        if len(waiting.rows) >= WINDOW_ROWS and not left:
            waiting.beyond = Beyond(segments[index:])
            break
        waiting.rows += read_segment(connection, stream, segment)
        left -= segment in stamped
    return waiting


def read_segment(connection: sqlite3.Connection, stream: str, segment: Segment) -> list[Row]:
    """The batches of a segment, as far as they are still there; SpoolCorrupt for an invalid one."""
    where = "WHERE id BETWEEN ? AND ? AND stream = ? AND run = ? ORDER BY id"
    values = segment.first_id, segment.last_id, stream, segment.run
    return [Row(id_, *rest) for id_, _, *rest in rows(connection, "batches", where, *values)]
