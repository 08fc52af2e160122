"""Looks at every record of a batch and copies none: for whoever stores batches that others will have to read.

What passes, `batch.iterate` reads to its end, which would take several times as long. Nearly all records of a batch
are of one form: no attributes, the time of the batch, a key or none, the headers of the record before. What stands
between the values of such records depends on their sizes and on the offset alone, so it is compared as one number, and
only a record that differs is taken apart.
"""

from __future__ import annotations

from functools import lru_cache

from streams.errors import BatchCorrupt
from streams.records.batch import Header, check_timestamp, plain
from streams.records.body import NO_KEY, Row, encoded, row_at, varint

MAX_PLAIN_BYTES = 16 * 1024 * 1024
"""Twice what a forwarder may put into a batch before it compresses it."""
MAX_RECORDS = 1_000_000
"""As many as a forwarder may put into a batch."""
LEAST_RECORD_BYTES = 7
"""A record without key, value and headers: its length and six fields of a byte each."""
_PLAIN = b"\x00\x00"  # attributes, timestampDelta
_MOST_HEADERS_BYTES = 512
"""With more, comparing numbers of that length is no faster than taking records apart."""
_MOST_FORMS, _MOST_STEPS = 16, 1 << 13
_ALIKE = 64
"""Offsets up to the next multiple of this differ in one byte of their varint, and there by 2."""


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
    while index < count:
        try:
            row, at = row_at(body, at)
        except IndexError:
            raise BatchCorrupt(f"record {index} is cut short") from None
        if row.offset_delta != index:
            raise BatchCorrupt(f"record {index} has the offset of another")
        check_timestamp(header, row.timestamp_delta, record=index)
        at, index = _pass(body, at, index + 1, count, row)
    if at != len(body):
        raise BatchCorrupt(f"{len(body) - at} bytes follow the last record")


def _pass(body: bytes, at: int, index: int, count: int, row: Row) -> tuple[int, int]:
    """Pass the records of the form of `row`, which ends at `at`: position and index of the first other one."""
    headers, has_key, number = row.headers, row.key is not None, int.from_bytes
    if len(headers) > _MOST_HEADERS_BYTES:
        return at, index
    before = 0
    try:
        while index < count:
            steps = _steps(headers, has_key, _varint_bytes(body, at), len(encoded(index)))
            behind, ahead, two = len(headers), steps.compared_bytes, 2 << steps.offset_bit
            offset = number(encoded(index), "little") << steps.offset_bit
            for passing in range(index, min(count, (index // _ALIKE + 1) * _ALIKE)):
                step, field_at, field = steps[number(body[at - behind : at + ahead], "little") - offset]
                if field_at and not body.startswith(field, at + field_at):
                    raise LookupError
                before, at, offset, index = at, at + step, offset + two, passing + 1
    except LookupError:  # a record of another form, or the end
        pass
    if before and not body.startswith(headers, at - len(headers)):
        return before, index - 1  # the headers of the last one differ
    return at, index


class _Steps(dict[int, tuple[int, int, bytes]]):
    """How far it is from a record of one form to the next, by how it begins.

    The key is a little-endian number: the headers of the record before, then this one up to its value, or up to its
    key if it has one, less its offset. With the step come where, behind a key, the length of the value stands, and what
    it must be.
    """

    def __init__(self, headers: bytes, has_key: bool, length_bytes: int, offset_bytes: int) -> None:
        self._headers, self._has_key, self._offset_bytes = headers, has_key, offset_bytes
        self.offset_bit = 8 * (len(headers) + length_bytes + len(_PLAIN))
        self._key_at = self.offset_bit // 8 + offset_bytes
        self.compared_bytes = length_bytes + len(_PLAIN) + offset_bytes + 1
        if not has_key:
            self.compared_bytes += length_bytes  # the value's length takes no more bytes than the record's

    def __missing__(self, number: int) -> tuple[int, int, bytes]:
        headers = self._headers
        try:
            begin = number.to_bytes(len(headers) + self.compared_bytes, "little")
            length, length_ends = varint(begin, len(headers))
        except (OverflowError, BatchCorrupt):
            raise KeyError(number) from None
        key = begin[self._key_at : self._key_at + 1] if self._has_key else NO_KEY
        key_bytes = key[0] >> 1  # none for NO_KEY
        fields_bytes = len(_PLAIN) + self._offset_bytes + len(key) + key_bytes + len(headers)
        field = _length_field(length - fields_bytes)
        form = headers + encoded(max(length, 0)) + _PLAIN + bytes(self._offset_bytes) + key
        if key[0] & (0x81 if self._has_key else 0) or not begin.startswith(form if self._has_key else form + field):
            raise KeyError(number)
        if len(self) >= _MOST_STEPS:
            self.clear()
        field_at = len(form) - len(headers) + key_bytes if self._has_key else 0
        self[number] = step = (length_ends - len(headers) + length, field_at, field)
        return step


_steps = lru_cache(_MOST_FORMS)(_Steps)


def _length_field(field_bytes: int) -> bytes:
    """The length with which a value begins that takes so many bytes together with it; LookupError if none does."""
    for length_bytes in range(1, 5):
        if field_bytes >= length_bytes and len(field := encoded(field_bytes - length_bytes)) == length_bytes:
            return field
    raise LookupError


def _varint_bytes(body: bytes, at: int) -> int:
    return 1 if body[at] < 0x80 else 2 if body[at + 1] < 0x80 else 3
