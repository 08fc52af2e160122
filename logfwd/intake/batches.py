"""The records of a draft → batches, in two steps: framed, and packed. Between them zstd compresses.

A framed record holds its offset in its batch, so records are framed for a batch of which nobody knows yet how many it
can take. `Framing` counts on one that becomes as full as expected; `Packing` sees what the records have become, and
moves what does not fit any more into the next batch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from logfwd.intake.shape import PLAIN, Shape
from streams.records.batch import HEADER_BYTES, Codec, OpenBatch, Packed, compressed
from streams.records.body import BytesLike, Extras, frame, halved, moved_down

FRAMING_ALLOWANCE = 8
"""A batch may exceed `max_batch_bytes` by one eighth of it, and `max_uncompressed_bytes` before compression: for the
fields that framing puts around each record.

So without compression a block of that size becomes one batch, unless its lines are shorter than about 70 bytes or were
wrapped; and the default of 900 KiB stays within the default limit of a topic (1 048 588 bytes).
"""
WELL_FILLED = 8
"""A compressed batch is closed when one eighth of `max_batch_bytes` is left: smaller pieces are not worth a turn."""


class Rules(NamedTuple):
    """What a stream makes of its blocks."""

    invalid: Literal["wrap", "drop"]
    max_record_bytes: int
    max_batch_records: int
    max_batch_bytes: int
    max_uncompressed_bytes: int
    codec: Codec
    shape: Shape = PLAIN


class Piece(NamedTuple):
    """Framed records of one batch."""

    records: memoryview
    record_count: int
    first: int
    """The offset of the first of them."""
    batch: int
    """Which one they were framed for."""


class Framing:
    """Frames values for one batch after the other."""

    def __init__(self, rules: Rules) -> None:
        self._max_records = rules.max_batch_records
        self._most_bytes = _with_allowance(rules.max_uncompressed_bytes)
        if rules.codec is Codec.NONE:
            self._most_bytes = min(self._most_bytes, _with_allowance(rules.max_batch_bytes))
        self._batch = self._count = self._bytes = 0

    def frame(self, values: list[BytesLike], extras: Extras, *, full: int) -> list[Piece]:
        """All values; none of them for the batch `full`.

        They are taken out of their list, and so freed before zstd pushes them out of the processor's caches.
        """
        pieces: list[Piece] = []
        if self._batch == full:
            self._begin_next()
        while values:
            if self._count == self._max_records:
                self._begin_next()
            most, room = self._max_records - self._count, self._most_bytes - self._bytes
            some = values if len(values) <= most else values[:most]
            records, count = frame(some, room, extras.part(0, most), self._count)
            if self._count and len(records) > room:
                self._begin_next()
                continue
            del some, values[:count]
            extras = extras.part(count, None)
            pieces.append(Piece(records, count, self._count, self._batch))
            self._count += count
            self._bytes += len(records)
        return pieces

    def _begin_next(self) -> None:
        self._batch += 1
        self._count = self._bytes = 0


class Packing:
    """Puts pieces, in their order, into batches."""

    def __init__(self, rules: Rules, timestamp_ms: int) -> None:
        self._codec, self._timestamp_ms = rules.codec, timestamp_ms
        self._full_bytes = rules.max_batch_bytes - rules.max_batch_bytes // WELL_FILLED
        self._most_bytes = _with_allowance(rules.max_batch_bytes)
        self._open = OpenBatch(self._codec)
        self.batches: list[Packed] = []
        self.full = -1
        """The last batch for which no more should be framed."""

    def add(self, piece: Piece, data: BytesLike, *, is_last: bool = False) -> None:
        """Add a piece that was compressed into `data`."""
        before = self._open.record_count
        if not piece.first:
            self.close()
        elif piece.first != before:  # what was framed for the same batch was moved into another one
            piece = _moved(piece, piece.first - before)
            data = compressed(piece.records, self._codec)
        count, size = self._open.record_count + piece.record_count, self._open.byte_count + len(data)
        if is_last and count == piece.record_count and len(data) >= len(piece.records):
            self._open, data = OpenBatch(Codec.NONE), piece.records
        elif size > self._most_bytes and count > 1:
            self._add_to_next(piece)
            return
        self._open.add(data, piece.record_count, len(piece.records))
        if size >= self._full_bytes:
            self.full = piece.batch

    def _add_to_next(self, piece: Piece) -> None:
        """Add a piece that is too large for the open batch: to the next one, or halves of it to the next two."""
        self.full = piece.batch
        for each in [_moved(piece, piece.first)] if piece.first else _halves(piece):
            self.add(each, compressed(each.records, self._codec))

    def close(self) -> None:
        """End the open batch, if there is one."""
        batch, self._open = self._open, OpenBatch(self._codec)
        if batch.record_count:
            self.batches.append(batch.close(self._timestamp_ms))


def _moved(piece: Piece, by: int) -> Piece:
    return piece._replace(records=memoryview(moved_down(bytes(piece.records), by)), first=piece.first - by)


def _halves(piece: Piece) -> list[Piece]:
    middle = piece.record_count // 2
    first, second = halved(bytes(piece.records), piece.record_count)
    return [
        Piece(memoryview(first), middle, 0, piece.batch),
        Piece(memoryview(second), piece.record_count - middle, 0, piece.batch),
    ]


def _with_allowance(most_bytes: int) -> int:
    """What the records of a batch may take, framing included."""
    return most_bytes + most_bytes // FRAMING_ALLOWANCE - HEADER_BYTES
