"""The records part of a record batch v2, after its header: framed; decompressed within a limit, and read.

    record = length varint · attributes int8 · timestampDelta varint · offsetDelta varint
             · key bytes · value bytes · headerCount varint · (name bytes · value bytes) for each header
    bytes  = length varint, −1 for none · that many bytes;    varint = zigzag, at most 64 bits

Framing is the hot path of a forwarder: none of its steps runs in Python for each record. A record without key and
headers is its value between bytes that depend only on its size and offset, so these are looked up, laid between the
values by slices, and joined: half the cost of one builder call per record.

Reading is not a hot path: a program that forwards batches never opens them. Whatever the bytes are, memory stays within
the limit and nothing but BatchCorrupt is raised.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import zstandard

from streams.errors import BatchCorrupt

BytesLike = bytes | bytearray | memoryview | msgspec.Raw

_MAX_WINDOW_BYTES = 8 * 1024 * 1024  # what RFC 8878 §3.1.1.1.2 asks every decoder to support; ours need less
_MAX_VARINT_BITS = 70  # ten bytes of seven


_MOST_FRAMING_BYTES = 19
"""The most that surrounds a record's value: three integers of five bytes and four single bytes."""
_MOST_KNOWN_SIZES = 1 << 16
_NO_HEADERS = b"\x00"
_NO_KEY = b"\x01"


def frame(values: Sequence[BytesLike], max_bytes: int) -> tuple[memoryview, int]:
    """As many leading values as stay under `max_bytes` (at least one), framed as records without key, and their number.

    Their timestamp is that of the batch.
    """
    sizes = list(map(len, values))
    if sum(sizes) + len(sizes) * _MOST_FRAMING_BYTES >= max_bytes:
        del sizes[_fitting(sizes, max_bytes) :]
    count = len(sizes)
    pieces: list[BytesLike] = [_NO_HEADERS] * (4 * count + 1)  # four a record, and the end of the last
    for known in _STARTS:
        its_sizes, at = sizes[known.offsets], 4 * known.offsets.start
        pieces[at : at + 4 * len(its_sizes) : 4] = map(known.__getitem__, its_sizes)
    pieces[1::4] = _offsets(count)[:count]
    pieces[2::4] = map(_MIDDLES.__getitem__, sizes)
    pieces[3::4] = values[:count]
    return memoryview(b"".join(pieces))[1:], count


class _Starts(dict[int, bytes]):
    """The start of a record up to its offsetDelta, by the size of its value, after the last byte of the one before."""

    def __init__(self, offset_bytes: int) -> None:
        self._offset_bytes = offset_bytes
        lowest = 0 if offset_bytes == 1 else 1 << (7 * offset_bytes - 8)
        self.offsets = slice(lowest, 1 << (7 * offset_bytes - 1))
        """The offsets whose varint takes `offset_bytes` bytes."""

    def __missing__(self, size: int) -> bytes:
        if len(self) >= _MOST_KNOWN_SIZES:
            self.clear()
        rest = b"\x00\x00"  # attributes, timestampDelta
        length = len(rest) + self._offset_bytes + len(_MIDDLES[size]) + size + len(_NO_HEADERS)
        self[size] = start = _NO_HEADERS + _encoded(length) + rest
        return start


class _Middles(dict[int, bytes]):
    """The bytes between a record's offsetDelta and its value, by the size of the value."""

    def __missing__(self, size: int) -> bytes:
        if len(self) >= _MOST_KNOWN_SIZES:
            self.clear()
        self[size] = middle = _NO_KEY + _encoded(size)
        return middle


_STARTS = [_Starts(offset_bytes) for offset_bytes in range(1, 6)]
_MIDDLES = _Middles()
_known_offsets: list[bytes] = []
_growing = threading.Lock()


def _offsets(count: int) -> list[bytes]:
    """The varints from 0 up to at least `count`."""
    if len(_known_offsets) < count:
        with _growing:
            _known_offsets.extend(map(_encoded, range(len(_known_offsets), count)))
    return _known_offsets


def _encoded(number: int) -> bytes:
    """A non-negative number as a varint."""
    raw, encoded = number << 1, bytearray()
    while raw > 0x7F:
        encoded.append(raw & 0x7F | 0x80)
        raw >>= 7
    encoded.append(raw)
    return bytes(encoded)


def _fitting(sizes: list[int], max_bytes: int) -> int:
    """How many leading records stay under `max_bytes`; at least one."""
    total = 0
    for count, (size, offset) in enumerate(zip(sizes, _offsets(len(sizes)), strict=False)):
        total += len(_STARTS[len(offset) - 1][size]) + len(offset) + len(_MIDDLES[size]) + size
        if total >= max_bytes:
            return max(count, 1)
    return len(sizes)


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
            raise BatchCorrupt(f"{announced_bytes} bytes of records after decompression, {max_bytes} are allowed")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        return decompressor.decompress(body, max_output_size=max_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BatchCorrupt(f"its records do not decompress within {max_bytes} bytes: {error}") from error


def rows(body: bytes, count: int) -> Iterator[Row]:
    """Exactly `count` records, which must fill `body` exactly."""
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
    """The record at `at` and the position of its end; IndexError where the bytes run out."""
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
