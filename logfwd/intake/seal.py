"""Blocks of records -> record batches, ready for the spool: validated, framed, compressed, with their CRC.

This is the most expensive thing a forwarder does, so it runs on a pool of threads, over whole blocks; zstd and CRC
release the interpreter meanwhile. Pure: the same blocks give the same batches, and order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from logfwd.intake import jsonlines
from logfwd.sources.position import Block
from streams.records.batch import HEADER_BYTES, Codec, Packed, pack
from streams.records.body import BytesLike, frame

FRAMING_ALLOWANCE = 8
"""A batch may exceed `max_batch_bytes` by one eighth of it: for the fields that framing puts around each record.

So a block of that size becomes one batch, unless its lines are shorter than about 70 bytes or were wrapped; and the
default of 900 KiB stays within the default limit of a topic (1 048 588 bytes), compressed or not.
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
) -> Sealed:
    """The records of blocks, in order, as unstamped batches: usually one, more if records are many.

    Only a batch of a single record can be larger than `max_batch_bytes` and its framing allowance.
    """
    lines = [
        jsonlines.split(block.data, invalid=invalid, max_record_bytes=max_record_bytes, ends=block.ends)
        for block in blocks
    ]
    values: Sequence[BytesLike] = (
        lines[0].values if len(lines) == 1 else [value for each in lines for value in each.values]
    )
    max_framed_bytes = max_batch_bytes + max_batch_bytes // FRAMING_ALLOWANCE - HEADER_BYTES
    framed: list[tuple[memoryview, int]] = []
    start = 0
    while start < len(values):
        framed.append(frame(values[start : start + max_batch_records], max_framed_bytes))
        start += framed[-1][1]
    of_blocks = [(len(each.values), each.invalid) for each in lines]
    invalid_count, blank_count = sum(each.invalid for each in lines), sum(each.blank for each in lines)
    del lines, values  # the lines take most of the memory here: free them before zstd runs
    batches = [pack(records, count, timestamp_ms=timestamp_ms, codec=codec) for records, count in framed]
    return Sealed(batches, invalid_count, blank_count, of_blocks)
