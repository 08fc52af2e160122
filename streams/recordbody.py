"""The records part of a record batch v2, behind its header: decompressed within a limit, and read.

    record = length varint · attributes int8 · timestampDelta varint · offsetDelta varint
             · key bytes · value bytes · headerCount varint · (name bytes · value bytes) for each header
    bytes  = length varint, −1 for none · that many bytes;    varint = zigzag, at most 64 bits

Invariant: whatever the bytes are, memory stays within the limit and nothing but BatchCorrupt is raised. Not for a hot
path: who forwards batches never opens them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from streams.errors import BatchCorrupt

_MAX_WINDOW_BYTES = 8 * 1024 * 1024  # what RFC 8878 §3.1.1.1.2 asks every decoder to support; ours need less
_MAX_VARINT_BITS = 70  # ten bytes of seven


class Row(NamedTuple):
    """One record as it is framed: relative to its batch."""

    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None


def unzstd(body: memoryview, max_bytes: int) -> bytes:
    """One whole zstd frame; BatchCorrupt if it is damaged, followed by more, or larger than `max_bytes`."""
    try:
        announced_bytes = zstandard.frame_content_size(body)  # −1: unknown
        if announced_bytes > max_bytes:
            raise BatchCorrupt(f"{announced_bytes} bytes of records once decompressed, {max_bytes} are allowed")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        return decompressor.decompress(body, max_output_size=max_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BatchCorrupt(f"its records do not decompress within {max_bytes} bytes: {error}") from error


def rows(body: bytes, count: int) -> Iterator[Row]:
    """Exactly `count` records, which fill `body` exactly."""
    at = 0
    for index in range(count):
        try:
            row, at = _row(body, at)
        except IndexError:
            raise BatchCorrupt(f"record {index} is cut short") from None
        yield row
    if at != len(body):
        raise BatchCorrupt(f"{len(body) - at} bytes follow the last record")


def _row(body: bytes, at: int) -> tuple[Row, int]:
    """The record at `at` and where it ends; IndexError where the bytes run out."""
    length, at = _varint(body, at)
    end = at + length
    timestamp_delta, at = _varint(body, at + 1)  # the attributes have no meaning yet
    offset_delta, at = _varint(body, at)
    key, at = _bytes(body, at)
    value, at = _bytes(body, at)
    header_count, at = _varint(body, at)
    for _ in range(2 * header_count):
        _, at = _bytes(body, at)
    if at != end or header_count < 0:
        raise BatchCorrupt("a record's length is not that of its fields")
    return Row(timestamp_delta, offset_delta, key, value), end


def _bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(body, at)
    if length < 0:
        return None, at
    end = at + length
    if end > len(body):
        raise IndexError
    return body[at:end], end


def _varint(body: bytes, at: int) -> tuple[int, int]:
    raw = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        byte = body[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
    raise BatchCorrupt("an integer has more than 64 bits")
