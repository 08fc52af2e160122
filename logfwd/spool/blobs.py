"""Which payloads of a spool are still needed, and the ids of new ones: a twin shares the blobs of its original.

No I/O: what it decides is noted in `Changes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from logfwd.spool.beyond import Beyond, Segment
from logfwd.spool.rows import ROW_ID_STEP, Changes, Row


class Blobs:
    """References to the payloads of one spool, by all its streams."""

    def __init__(self) -> None:
        self._references: Counter[int] = Counter()
        """How many rows in memory have each payload."""
        self._beyond: list[Beyond] = []
        """The batches of each stream that are not in memory. A payload is deleted with the last batch that has it."""
        self._last_blob = 0
        self._last_row = 0

    def adopt(self, rows: Iterable[Row], beyond: Beyond) -> None:
        """Count a stream's batches that were read from the disk."""
        self._beyond.append(beyond)
        for row in rows:
            self._references[row.blob] += 1

    def start_after(self, row: int, blob: int) -> None:
        """Ids up to these are in use."""
        self._last_row = max(self._last_row, row // ROW_ID_STEP)
        self._last_blob = max(self._last_blob, blob)

    def add(self, payload: bytes, changes: Changes) -> int:
        self._last_blob += 1
        changes.put_blob(self._last_blob, payload)
        return self._last_blob

    def take(self, blob: int) -> None:
        self._references[blob] += 1

    def next_row_id(self) -> int:
        self._last_row += 1
        return self._last_row * ROW_ID_STEP

    def release(self, blob: int, changes: Changes) -> None:
        self._references[blob] -= 1
        self.discard_unused(blob, changes)

    def discard_unused(self, blob: int, changes: Changes) -> None:
        if self._references[blob] <= 0:
            del self._references[blob]
            if not self._is_needed_beyond(blob):
                changes.delete_blob(blob)

    def discard_segment(self, segment: Segment, changes: Changes) -> None:
        """Delete the payloads of a segment that was taken out, except those that other batches have."""
        first: int | None = None
        for blob in range(segment.first_blob, segment.last_blob + 2):
            unused = blob <= segment.last_blob and blob not in self._references and not self._is_needed_beyond(blob)
            if unused and first is None:
                first = blob
            elif not unused and first is not None:
                changes.delete_blobs(first, blob - 1)
                first = None

    def _is_needed_beyond(self, blob: int) -> bool:
        return any(beyond.rows and beyond.needs(blob) for beyond in self._beyond)
