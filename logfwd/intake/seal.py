"""Blocks of records -> record batches, ready for the spool: validated, framed, compressed, with their CRC.

This is the most expensive thing a forwarder does, so it runs on a pool of threads, over whole blocks; zstd and CRC
release the interpreter meanwhile. Pure: the same blocks give the same batches, and order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from logfwd.intake.shape import PLAIN, Part, Shape, split
from logfwd.sources.position import Block
from streams.records.batch import HEADER_BYTES, Codec, Packed, pack
from streams.records.body import NO_EXTRAS, BytesLike, Extras, frame

FRAMING_ALLOWANCE = 8
"""A batch may exceed `max_batch_bytes` by one eighth of it: for the fields that framing puts around each record.

So a block of that size becomes one batch, unless its lines are shorter than about 70 bytes or were wrapped; and the
default of 900 KiB stays within the default limit of a topic (1 048 588 bytes), compressed or not. A compressed batch
may also exceed it by what the shape adds to each record, up to `max_batch_bytes` again: repetition takes little room.
"""


class Sealed(NamedTuple):
    """The batches of some blocks, in order (none if no record was left), and how many lines were invalid or blank."""

    batches: list[Packed]
    invalid: int
    blank: int
    of_blocks: list[tuple[int, int]]
    """Of each block: its records, and its lines that were invalid."""


def seal(
    blocks: Iterable[Block],
    *,
    timestamp_ms: int,
    invalid: Literal["wrap", "drop"],
    max_record_bytes: int,
    max_batch_records: int,
    max_batch_bytes: int,
    codec: Codec,
    shape: Shape = PLAIN,
) -> Sealed:
    """The records of blocks, in order, as unstamped batches: usually one, more if records are many.

    Only a batch of a single record can be larger than `max_batch_bytes` and its allowances.
    """
    parts = [split(shape, block, invalid=invalid, max_record_bytes=max_record_bytes) for block in blocks]
    values: Sequence[BytesLike] = (
        parts[0].values if len(parts) == 1 else [value for each in parts for value in each.values]
    )
    extras = _extras(parts, shape)
    max_framed_bytes = max_batch_bytes + max_batch_bytes // FRAMING_ALLOWANCE - HEADER_BYTES
    if extras != NO_EXTRAS and codec is not Codec.NONE:
        max_framed_bytes += min(_added_bytes(parts, shape), max_batch_bytes)
    framed: list[tuple[memoryview, int]] = []
    start = 0
    while start < len(values):
        end = start + max_batch_records
        framed.append(frame(values[start:end], max_framed_bytes, extras.part(start, end)))
        start += framed[-1][1]
    of_blocks = [(len(each.values), each.invalid) for each in parts]
    invalid_count, blank_count = sum(each.invalid for each in parts), sum(each.blank for each in parts)
    del parts, values, extras  # the lines take most of the memory here: free them before zstd runs
    batches = [pack(records, count, timestamp_ms=timestamp_ms, codec=codec) for records, count in framed]
    return Sealed(batches, invalid_count, blank_count, of_blocks)


def _extras(parts: Sequence[Part], shape: Shape) -> Extras:
    """What is framed with the values of all parts."""
    keys = None if shape.key_field is None else [key for each in parts for key in each.keys]
    if all(each.opening == shape.opening for each in parts):
        return Extras(shape.opening, None, keys, shape.headers)
    openings: list[bytes] = []  # of files: too many to be `opening`, for each of which framing keeps tables
    for each in parts:
        openings += [each.opening] * len(each.values)
    return Extras(b"", openings, keys, shape.headers)


def _added_bytes(parts: Sequence[Part], shape: Shape) -> int:
    """By how much the shape makes records larger than their lines."""
    return sum(len(each.values) * (len(each.opening) + len(shape.headers)) + sum(map(len, each.keys)) for each in parts)
