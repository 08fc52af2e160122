"""Looks at every record of a batch and copies none: for whoever stores batches that others will have to read.

What passes, `batch.iterate` reads to its end, which would take several times as long: the fields that nearly all
records have in common (no attributes, the time of the batch, the headers of the record before, small numbers) are
compared as bytes where they stand, and only a record that differs is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain

from streams.errors import BatchCorrupt
from streams.records.batch import Header, check_timestamp, plain
from streams.records.body import NO_HEADERS, encoded, row_at

MAX_PLAIN_BYTES = 16 * 1024 * 1024
"""Twice what a forwarder may put into a batch before it compresses it."""
MAX_RECORDS = 1_000_000
"""As many as a forwarder may put into a batch."""
LEAST_RECORD_BYTES = 7
"""A record without key, value and headers: its length and six fields of a byte each."""
_KNOWN_STARTS = 1 << 14
_NONE = 1  # −1 as a varint
_TWO_BYTES = 1 << 14


def walk(batch: memoryview, header: Header) -> None:
    """BatchCorrupt unless every record of a checked batch can be read, and there are not too many of them."""
    count = header.record_count
    if count > MAX_RECORDS:
        raise BatchCorrupt(f"{count} records, {MAX_RECORDS} are allowed")
    body = plain(batch, header, MAX_PLAIN_BYTES)
    if count * LEAST_RECORD_BYTES > len(body):
        raise BatchCorrupt(f"{count} records do not fit into {len(body)} bytes")
    check_timestamp(header, 0, record=0)
    at = index = 0
    headers = NO_HEADERS
    while True:
        at, index = _pass(body, at, index, count, headers)
        if index == count:
            break
        try:
            row, at = row_at(body, at)
        except IndexError:
            raise BatchCorrupt(f"record {index} is cut short") from None
        if row.offset_delta != index:
            raise BatchCorrupt(f"record {index} has the offset of another")
        check_timestamp(header, row.timestamp_delta, record=index)
        headers, index = row.headers, index + 1
    if at != len(body):
        raise BatchCorrupt(f"{len(body) - at} bytes follow the last record")


def _pass(body: bytes, at: int, index: int, count: int, headers: bytes) -> tuple[int, int]:
    """Pass records of the usual form with these headers: position and index of the first other one.

    Integers of one byte and of two are read here: calls would cost more than all the rest.
    """
    headers_bytes, starts_with = len(headers), body.startswith
    try:
        for start in _starts(index, count):
            length, place = body[at], at + 1
            if length > 0x7F:
                length, place = length & 0x7F | body[place] << 7, place + 1
            end = place + (length >> 1)
            if not starts_with(start, place):
                break
            place += len(start)
            key = body[place]
            if key != _NONE:
                if key & 0x81:  # negative, or longer than a byte
                    break
                place += key >> 1
            value, place = body[place + 1], place + 2
            if value > 0x7F:
                value, place = value & 0x7F | body[place] << 7, place + 1
            place += value >> 1
            if (length | value) & 1 or length >= _TWO_BYTES or value >= _TWO_BYTES or place + headers_bytes != end:
                break
            if not starts_with(headers, place):
                break
            at, index = end, index + 1
    except IndexError:
        pass  # whoever takes the record apart says so
    return at, index


def _starts(index: int, count: int) -> Iterator[bytes]:
    """How records begin behind their length, from one on: attributes, timestampDelta, offsetDelta."""
    known = _known_starts()
    cached = map(known.__getitem__, range(index, min(count, len(known))))
    return chain(cached, map(_start, range(max(index, len(known)), count)))


@cache
def _known_starts() -> list[bytes]:
    return list(map(_start, range(_KNOWN_STARTS)))


def _start(index: int) -> bytes:
    return b"\x00\x00" + encoded(index)
