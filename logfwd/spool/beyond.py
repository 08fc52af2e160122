"""The batches of a stream that wait behind those in memory: their sums, and where in the file they are.

A stream without a receiver collects millions of batches. Memory holds the first WINDOW_ROWS of them as rows; what
follows is known as *segments*: so many batches of one run, between two row ids, with their records and bytes. A segment
becomes rows again when few are left (`Backlog.next_segment`), or is dropped as a whole.

INVARIANTS. No row of a segment is stamped. The blobs of a segment have consecutive ids, which is what sealing gives
them; so whether a stream still needs a blob can be told from a few ranges, whatever waits. No I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from logfwd.spool.rows import Row
from streams.errors import SpoolCorrupt

WINDOW_ROWS = 400
"""Batches of a stream that are kept in memory; each takes about 300 bytes."""
LEAST_ROWS = 200
"""The next segment is read when no more than these are left."""
SEGMENT_ROWS = 200


class Segment(msgspec.Struct, eq=False):
    """Waiting batches of one run that follow each other."""

    run: int
    first_id: int
    last_id: int
    first_blob: int
    last_blob: int
    rows: int
    records: int
    size: int
    first_sealed_at: float | None = None
    last_sealed_at: float | None = None
    is_closed: bool = False
    """True once it is being read: what is accepted later begins another segment."""

    def sealed_at(self, index: int) -> float | None:
        """About when its batch `index` was sealed: between the first and the last, as if they came at a steady rate."""
        if self.first_sealed_at is None or self.last_sealed_at is None:
            return None
        return self.first_sealed_at + (self.last_sealed_at - self.first_sealed_at) * index / max(self.rows - 1, 1)

    def check(self, found: Sequence[Row]) -> None:
        """SpoolCorrupt if the batches on disk are not those that were counted."""
        sums = len(found), sum(row.record_count for row in found), sum(row.size for row in found)
        if sums != (self.rows, self.records, self.size):
            raise SpoolCorrupt(f"{self.rows} batches from id {self.first_id} on were expected, and {len(found)} found")

    def _goes_on_with(self, row: Row) -> bool:
        return not self.is_closed and self.rows < SEGMENT_ROWS and (self.run, self.last_blob + 1) == (row.run, row.blob)

    def extend(self, row: Row) -> bool:
        """Add a row to its end; False if the row cannot belong to this segment."""
        if not self._goes_on_with(row):
            return False
        self.last_id, self.last_blob, self.last_sealed_at = row.id, row.blob, row.sealed_at
        self.rows += 1
        self.records += row.record_count
        self.size += row.size
        return True


class Beyond:
    """The segments of one stream, in the order in which they will be sent."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.rows = 0
        """Number of batches in all segments."""
        self._segments: deque[Segment] = deque()
        self._blobs: deque[list[int]] = deque()
        """First and last id of blobs that follow each other, over all segments."""
        for segment in segments:
            self.append_segment(segment)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def first(self) -> Segment | None:
        return self._segments[0] if self._segments else None

    @property
    def first_sealed_at(self) -> float | None:
        return None if self.first is None else self.first.first_sealed_at

    def append(self, row: Row) -> None:
        """Add a row that follows all others."""
        if not self._segments or not self._segments[-1].extend(row):
            self._segments.append(
                Segment(
                    row.run,
                    *(row.id, row.id),
                    *(row.blob, row.blob),
                    *(1, row.record_count, row.size),
                    *(row.sealed_at, row.sealed_at),
                )
            )
        self.rows += 1
        self._append_blobs(row.blob, row.blob)

    def append_segment(self, segment: Segment) -> None:
        """Add a segment that was read from the file, in order."""
        self._segments.append(segment)
        self.rows += segment.rows
        self._append_blobs(segment.first_blob, segment.last_blob)

    def _append_blobs(self, first: int, last: int) -> None:
        if self._blobs and self._blobs[-1][1] + 1 == first:
            self._blobs[-1][1] = last
        else:
            self._blobs.append([first, last])

    def pop(self) -> Segment:
        """Take out the first segment."""
        segment = self._segments.popleft()
        self.rows -= segment.rows
        blobs = self._blobs[0]
        blobs[0] = segment.last_blob + 1
        if blobs[0] > blobs[1]:
            self._blobs.popleft()
        return segment

    def needs(self, blob: int) -> bool:
        """True if one of the batches has this payload."""
        return any(first <= blob <= last for first, last in self._blobs)
