"""The records part of a record batch v2, after its header: framed, and read.

    record = length varint · attributes int8 · timestampDelta varint · offsetDelta varint
             · key bytes · value bytes · headerCount varint · (name bytes · value bytes) for each header
    bytes  = length varint, −1 for none · that many bytes;    varint = zigzag, at most 64 bits

Framing is the hot path of a forwarder: none of its steps runs in Python for each record. A record is its value between
bytes that depend only on its size and offset, so these are looked up, laid between the values by slices, and joined:
half the cost of one builder call per record. Headers are the same for all records of a batch, so these bytes include
them. A key, or a beginning of the value that many records share, is laid between them as a further piece.

Reading is not a hot path: a program that forwards batches never opens them. Whatever the bytes are, nothing but
BatchCorrupt is raised.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import NamedTuple

import msgspec

from streams.errors import BatchCorrupt

BytesLike = bytes | bytearray | memoryview | msgspec.Raw

_MAX_VARINT_BITS = 70  # ten bytes of seven
MAX_HEADERS = 10_000
"""The most that a record may have: there is no end to how many a few compressed bytes can announce."""

_MOST_FRAMING_BYTES = 19
"""The most that surrounds a record's value: three integers of five bytes and four single bytes."""
_MOST_KNOWN_SIZES = 1 << 16
_MOST_KNOWN_SHAPES = 64
NO_HEADERS = b"\x00"
NO_KEY = b"\x01"
"""The header fields of a record that has none, and the key field of one without a key."""


class Extras(NamedTuple):
    """What the records of a batch have besides the values that are given."""

    opening: bytes = b""
    """How every value begins; what is given is the rest. Different ones should be few, and not many `openings`."""
    openings: Sequence[bytes] | None = None
    """How each value begins."""
    keys: Sequence[bytes] | None = None
    """The key field of each record (see `key_field`)."""
    headers: bytes = NO_HEADERS
    """The header fields of every record (see `header_fields`)."""

    def part(self, start: int, end: int | None) -> Extras:
        """Those of some of the records."""
        openings, keys = (None if each is None else each[start:end] for each in (self.openings, self.keys))
        return self._replace(openings=openings, keys=keys)


NO_EXTRAS = Extras()


def key_field(key: bytes | None) -> bytes:
    """A key as it is framed."""
    return NO_KEY if key is None else encoded(len(key)) + key


def header_fields(headers: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    """Headers as they are framed, with their count."""
    fields = (encoded(len(name)) + name + key_field(value) for name, value in headers)
    return encoded(len(headers)) + b"".join(fields)


def frame(
    values: Sequence[BytesLike], max_bytes: int, extras: Extras = NO_EXTRAS, first: int = 0
) -> tuple[memoryview, int]:
    """As many leading values as stay under `max_bytes` (at least one), framed as records, and their number.

    Their timestamp is that of the batch; the offset of the first of them in it is `first`.
    """
    opening, openings, keys, headers = extras
    starts, middles = _tables(opening, headers, keys is not None)
    sizes = list(map(len, values)) if openings is None else list(map(add, map(len, values), map(len, openings)))
    spans = sizes if keys is None else [len(key) + middles.span(size) for key, size in zip(keys, sizes, strict=True)]
    if sum(spans) + len(spans) * (_MOST_FRAMING_BYTES + len(opening) + len(headers)) >= max_bytes:
        del spans[_fitting(starts, spans, max_bytes, first) :]
        del sizes[len(spans) :]
    count = len(spans)
    offsets = _offsets(first + count)[first : first + count]
    values = values if count == len(values) else values[:count]
    columns: list[Iterable[BytesLike]] = [offsets, map(middles.__getitem__, sizes), values]
    if keys is not None:
        columns.insert(1, keys[:count])
    if openings is not None:
        columns.insert(-1, openings[:count])
    step = 1 + len(columns)
    pieces: list[BytesLike] = [headers] * (step * count + 1)  # the last of them ends the last record
    for known in starts:
        its = known.places(first)
        its_spans, at = spans[its], step * its.start
        pieces[at : at + step * len(its_spans) : step] = map(known.__getitem__, its_spans)
    for place, column in enumerate(columns, 1):
        pieces[place::step] = column
    return memoryview(b"".join(pieces))[len(headers) :], count


class _Middles(dict[int, bytes]):
    """The bytes between a record's offsetDelta, or key, and its value, by the size of the value but for its opening."""

    def __init__(self, key: bytes, opening: bytes) -> None:
        self._key, self._opening = key, opening

    def __missing__(self, size: int) -> bytes:
        if len(self) >= _MOST_KNOWN_SIZES:
            self.clear()
        self[size] = middle = self._key + encoded(len(self._opening) + size) + self._opening
        return middle

    def span(self, size: int) -> int:
        """The bytes of the value field."""
        return len(self[size]) + size


class _Starts(dict[int, bytes]):
    """The start of a record up to its offsetDelta, after the headers of the one before.

    By the size of its value, as in `_Middles`; with keys, by the bytes of its key and value fields.
    """

    def __init__(self, offset_bytes: int, headers: bytes, middles: _Middles, has_keys: bool) -> None:
        self.offset_bytes, self._headers = offset_bytes, headers
        self.middles = None if has_keys else middles
        lowest = 0 if offset_bytes == 1 else 1 << (7 * offset_bytes - 8)
        self.offsets = slice(lowest, 1 << (7 * offset_bytes - 1))
        """The offsets whose varint takes `offset_bytes` bytes."""

    def places(self, first: int) -> slice:
        """Where its offsets are among those from `first` on."""
        return slice(max(self.offsets.start - first, 0), max(self.offsets.stop - first, 0))

    def __missing__(self, span: int) -> bytes:
        if len(self) >= _MOST_KNOWN_SIZES:
            self.clear()
        rest = b"\x00\x00"  # attributes, timestampDelta
        fields_bytes = span if self.middles is None else self.middles.span(span)
        length = len(rest) + self.offset_bytes + fields_bytes + len(self._headers)
        self[span] = start = self._headers + encoded(length) + rest
        return start


@lru_cache(_MOST_KNOWN_SHAPES)
def _tables(opening: bytes, headers: bytes, has_keys: bool) -> tuple[list[_Starts], _Middles]:
    middles = _Middles(b"" if has_keys else NO_KEY, opening)
    return [_Starts(offset_bytes, headers, middles, has_keys) for offset_bytes in range(1, 6)], middles


_known_offsets: list[bytes] = []
_growing = threading.Lock()


def _offsets(count: int) -> list[bytes]:
    """The varints from 0 up to at least `count`."""
    if len(_known_offsets) < count:
        with _growing:
            _known_offsets.extend(map(encoded, range(len(_known_offsets), count)))
    return _known_offsets


def encoded(number: int) -> bytes:
    """A non-negative number as a varint."""
    raw, encoded = number << 1, bytearray()
    while raw > 0x7F:
        encoded.append(raw & 0x7F | 0x80)
        raw >>= 7
    encoded.append(raw)
    return bytes(encoded)


def _fitting(starts: list[_Starts], spans: list[int], max_bytes: int, first: int) -> int:
    """How many leading records stay under `max_bytes`; at least one."""
    total = done = 0
    for known in starts:
        its_spans = spans[known.places(first)]
        lengths = map(add, map(len, map(known.__getitem__, its_spans)), its_spans)
        if known.middles is not None:
            lengths = map(add, lengths, map(len, map(known.middles.__getitem__, its_spans)))
        ends = accumulate(lengths, initial=total)
        sizes = list(map(add, ends, range(0, (len(its_spans) + 1) * known.offset_bytes, known.offset_bytes)))
        if sizes[-1] >= max_bytes:
            return max(done + bisect_left(sizes, max_bytes) - 1, 1)
        total, done = sizes[-1], done + len(its_spans)
    return len(spans)


class Row(NamedTuple):
    """One record as it is framed: relative to its batch."""

    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: bytes
    """The header fields as they are framed, with their count."""


def rows(body: bytes, count: int) -> Iterator[Row]:
    """Exactly `count` records, which must fill `body` exactly."""
    at = 0
    for index in range(count):
        try:
            row, at = row_at(body, at)
        except IndexError:
            raise BatchCorrupt(f"record {index} is cut short") from None
        yield row
    if at != len(body):
        raise BatchCorrupt(f"{len(body) - at} bytes follow the last record")


def row_at(body: bytes, at: int) -> tuple[Row, int]:
    """The record at `at` and the position of its end; IndexError where the bytes run out."""
    length, at = varint(body, at)
    end = at + length
    timestamp_delta, at = varint(body, at + 1)  # the attributes have no meaning yet
    offset_delta, at = varint(body, at)
    key, at = _bytes(body, at)
    value, at = _bytes(body, at)
    headers_at = at
    header_count, at = varint(body, at)
    if header_count > MAX_HEADERS:
        raise BatchCorrupt(f"a record has {header_count} headers, {MAX_HEADERS} are allowed")
    for _ in range(2 * header_count):
        _, at = _bytes(body, at)
    if at != end or header_count < 0:
        raise BatchCorrupt("a record's length is not that of its fields")
    return Row(timestamp_delta, offset_delta, key, value, body[headers_at:end]), end


def headers_of(fields: bytes) -> list[tuple[bytes, bytes | None]]:
    """The names and values of header fields of a sound record."""
    count, at = varint(fields, 0)
    headers = []
    for _ in range(count):
        name, at = _bytes(fields, at)
        value, at = _bytes(fields, at)
        headers.append((name or b"", value))
    return headers


def halved(body: bytes, count: int) -> tuple[bytes, bytes]:
    """The first half of `count` sound records, and the others. Only their offsets and lengths are written again."""
    middle, second_at = count // 2, 0
    for _ in range(middle):
        length, fields_at = varint(body, second_at)
        second_at = fields_at + length
    return body[:second_at], moved_down(body[second_at:], middle)


def moved_down(body: bytes, by: int) -> bytes:
    """Sound records with offsets that are so much lower."""
    at, moved = 0, bytearray()
    while at < len(body):
        length, fields_at = varint(body, at)
        at = fields_at + length
        _, offset_at = varint(body, fields_at + 1)
        offset, rest_at = varint(body, offset_at)
        fields = body[fields_at:offset_at] + encoded(offset - by) + body[rest_at:at]
        moved += encoded(len(fields)) + fields
    return bytes(moved)


def _bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = varint(body, at)
    if length < 0:
        return None, at
    end = at + length
    if end > len(body):
        raise IndexError
    return body[at:end], end


def varint(body: bytes, at: int) -> tuple[int, int]:
    raw = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        byte = body[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
    raise BatchCorrupt("an integer has more than 64 bits")
