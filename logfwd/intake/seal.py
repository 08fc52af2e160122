"""Blocks of records -> record batches, ready for the spool: validated, framed, compressed, with their CRC.

This is the most expensive thing a forwarder does, so it runs on a pool of threads, over whole blocks; zstd and CRC
release the interpreter meanwhile. Pure: the same blocks give the same batches, and order is kept.

The records of a draft are compressed as they come, portion by portion, into one open batch, which is closed when it is
well filled or the draft ends. So a batch is full by what it takes when it is sent, and a forwarder need not keep what
it held before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple

from logfwd.intake.shape import PLAIN, Part, Shape, split
from logfwd.sources.position import Block
from streams.records.batch import HEADER_BYTES, Codec, OpenBatch, Packed
from streams.records.body import BytesLike, Extras, frame

FRAMING_ALLOWANCE = 8
"""A batch may exceed `max_batch_bytes` by one eighth of it, and `max_uncompressed_bytes` before compression: for the
fields that framing puts around each record.

So without compression a block of that size becomes one batch, unless its lines are shorter than about 70 bytes or were
wrapped; and the default of 900 KiB stays within the default limit of a topic (1 048 588 bytes).
"""
WELL_FILLED = 8
"""A compressed batch is closed when one eighth of `max_batch_bytes` is left: smaller pieces are not worth a turn."""


class Sealed(NamedTuple):
    """The batches of a draft, in order (none if no record was left), and how many lines were invalid or blank."""

    batches: list[Packed]
    invalid: int
    blank: int
    of_blocks: list[tuple[int, int]]
    """Of each block: its records, and its lines that were invalid."""


class Rules(NamedTuple):
    """What a stream makes of its blocks."""

    invalid: Literal["wrap", "drop"]
    max_record_bytes: int
    max_batch_records: int
    max_batch_bytes: int
    max_uncompressed_bytes: int
    codec: Codec
    shape: Shape = PLAIN


class Sealer:
    """Seals one draft: the records of its blocks, in order, as unstamped batches.

    Only a batch of a single record can be larger than `max_batch_bytes` and its allowance. There is more than one if
    records are many, or if they compress worse than those of the draft before.
    """

    def __init__(self, rules: Rules, timestamp_ms: int) -> None:
        self._rules, self._timestamp_ms = rules, timestamp_ms
        self._full_bytes = rules.max_batch_bytes - rules.max_batch_bytes // WELL_FILLED
        self._most_bytes, self._most_uncompressed_bytes = (
            most + most // FRAMING_ALLOWANCE - HEADER_BYTES
            for most in (rules.max_batch_bytes, rules.max_uncompressed_bytes)
        )
        self._open = OpenBatch(rules.codec)
        self._sealed = Sealed([], 0, 0, [])

    def add(self, blocks: Iterable[Block], *, is_last: bool, after: Future[Sealed] | None = None) -> Sealed:
        """Seal a portion; returns what the draft has become so far: all of it after the last one.

        `after` is the portion before. Its records are compressed while those of this one are looked through.
        """
        rules = self._rules
        parts = [
            split(rules.shape, block, invalid=rules.invalid, max_record_bytes=rules.max_record_bytes)
            for block in blocks
        ]
        if after is not None:
            after.result()
        batches, invalid, blank, of_blocks = self._sealed
        of_blocks += [(len(each.values), each.invalid) for each in parts]
        invalid, blank = invalid + sum(each.invalid for each in parts), blank + sum(each.blank for each in parts)
        self._sealed = Sealed(batches, invalid, blank, of_blocks)
        values = parts[0].values if len(parts) == 1 else [value for each in parts for value in each.values]
        extras = _extras(parts, rules.shape)
        del parts
        self._pack(values, extras, is_last=is_last)
        if is_last:
            self._close()
        return self._sealed

    def _pack(self, values: Sequence[BytesLike], extras: Extras, *, is_last: bool) -> None:
        start, is_plain = 0, self._rules.codec is Codec.NONE
        must_fit = is_plain  # else compressing shows whether they do
        while start < len(values):
            batch = self._open
            end = start + self._rules.max_batch_records - batch.record_count
            room = self._most_uncompressed_bytes - batch.uncompressed_bytes
            if must_fit:
                room = min(room, self._most_bytes - batch.byte_count)
            records, count = frame(values[start:end], room, extras.part(start, end), batch.record_count)
            if batch.record_count and len(records) > room:
                self._close()
                continue
            piece = batch.compressed(records)
            if not must_fit and batch.byte_count + len(piece) > self._most_bytes:
                must_fit = not batch.record_count
                self._close()
                continue
            must_fit, start = is_plain, start + count
            if is_last and start == len(values) and not batch.record_count and len(piece) >= len(records):
                self._open, piece = OpenBatch(Codec.NONE), records
            self._open.add(piece, count, len(records))
            if self._open.byte_count >= self._full_bytes or self._open.record_count == self._rules.max_batch_records:
                self._close()

    def _close(self) -> None:
        batch, self._open = self._open, OpenBatch(self._rules.codec)
        if batch.record_count:
            self._sealed.batches.append(batch.close(self._timestamp_ms))


def seal(blocks: Iterable[Block], rules: Rules, *, timestamp_ms: int) -> Sealed:
    """A draft whose blocks are all there."""
    return Sealer(rules, timestamp_ms).add(blocks, is_last=True)


def _extras(parts: Sequence[Part], shape: Shape) -> Extras:
    """What is framed with the values of all parts."""
    keys = None if shape.key_field is None else [key for each in parts for key in each.keys]
    if all(each.opening == shape.opening for each in parts):
        return Extras(shape.opening, None, keys, shape.headers)
    openings: list[bytes] = []  # of files: too many to be `opening`, for each of which framing keeps tables
    for each in parts:
        openings += [each.opening] * len(each.values)
    return Extras(b"", openings, keys, shape.headers)
