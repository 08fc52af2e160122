"""The first records of a batch, without decompressing the rest: for a look at what passes."""

from __future__ import annotations

from itertools import islice

import zstandard

from streams.errors import BatchCorrupt
from streams.records.batch import HEADER_BYTES, Codec, Record, check, check_timestamp, iterate
from streams.records.body import row_at

MOST_BYTES = 64 * 1024 * 1024
"""How far a batch may be decompressed for a first record that is longer than asked for."""


def first_records(batch: bytes, most: int, max_bytes: int) -> list[Record]:
    """At most so many, and those that are whole in the first `max_bytes`, but at least one; BatchCorrupt for damage."""
    header = check(batch)
    start = _start(memoryview(batch)[HEADER_BYTES:], header.codec, max_bytes)
    records: list[Record] = []
    at = 0
    for index in range(min(most, header.record_count)):
        try:
            row, at = row_at(start, at)
        except IndexError:  # the next one is longer than what is there
            break
        timestamp_ms = check_timestamp(header, row.timestamp_delta, record=index)
        records.append(Record(header.base_offset + index, timestamp_ms, row.key, row.value, row.headers))
    return records or list(islice(iterate(batch, max_bytes=MOST_BYTES), min(most, 1)))


def _start(body: memoryview, codec: Codec, max_bytes: int) -> bytes:
    if codec is Codec.NONE:
        return bytes(body[:max_bytes])
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            start: bytes = reader.read(max_bytes)
            return start
    except zstandard.ZstdError as error:
        raise BatchCorrupt(f"its records do not decompress: {error}") from error
