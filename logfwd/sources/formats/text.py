"""Lines of text -> JSON lines, `{"message": line}`. No I/O.

Blank lines are skipped, as in every format. A line that is too long is several records (parts.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import msgspec

from logfwd.sources.formats.encodings import Encoding
from logfwd.sources.formats.parts import in_parts, line_id

UNDECODABLE, CUT = "undecodable", "cut"
"""What is counted: records with characters that could not be decoded, and lines that became several records."""

Count = Callable[[str, int], None]
"""Counts that many of these."""


def ignore(_: str, __: int) -> None:
    """Count nothing."""


_encoder = msgspec.json.Encoder()


class Message(msgspec.Struct):
    """The record of a line."""

    message: str


class TextLines:
    """The lines of one file. Each is a record by itself: none is ever open, and there is no state to be stored."""

    has_open = can_end = False
    is_checked = True
    """Every line that `feed` returns is a record."""

    def __init__(self, max_record_bytes: int, count: Count, origin: object = "") -> None:
        self._max_record_bytes, self._count, self._origin = max_record_bytes, count, origin

    def restore(self, *_: object) -> None:
        """Begin anywhere between two lines."""

    def state(self) -> bytes:
        """Nothing."""
        return b""

    def end(self, *, everything: bool) -> bytes:
        """Nothing."""
        return b""

    def feed(self, data: bytes, start: int, encoding: Encoding) -> bytes:
        """The JSON lines of whole lines that stand at `start` in the file."""
        lines, undecodable = decoded(data, encoding)
        if undecodable:
            self._count(UNDECODABLE, undecodable)
        messages = [Message(line) for line in lines if line and not line.isspace()]
        encoded = _encoder.encode_lines(messages)
        # an escape of a character has up to 6 bytes
        if max(map(len, lines), default=0) * 6 + 64 <= self._max_record_bytes or self._all_fit(encoded):
            return encoded
        return b"".join(self._each(message.message, start, number) for number, message in enumerate(messages))

    def _all_fit(self, encoded: bytes) -> bool:
        return max(map(len, io.BytesIO(encoded)), default=0) - 1 <= self._max_record_bytes

    def _each(self, line: str, start: int, number: int) -> bytes:
        most = self._max_record_bytes
        if len(line) < most and len(record := _encoder.encode(Message(line))) <= most:
            return record + b"\n"
        self._count(CUT, 1)
        id_ = line_id(self._origin, start, number)
        return joined(in_parts("message", line, {}, most, id_))


def joined(records: list[bytes]) -> bytes:
    """Records as lines."""
    return b"".join(record + b"\n" for record in records)


def decoded(data: bytes, encoding: Encoding) -> tuple[list[str], int]:
    """The lines of whole lines, without their ends, and how many hold what cannot be decoded (then U+FFFD)."""
    try:
        text, undecodable = data.decode(encoding.name), 0
    except UnicodeDecodeError:
        parts = list(_decoded_each(data, encoding))
        text, undecodable = "".join(line for line, _ in parts), sum(fault for _, fault in parts)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()  # nothing follows the last newline
    return ([line.removesuffix("\r") for line in lines] if "\r" in text else lines), undecodable


def _decoded_each(data: bytes, encoding: Encoding) -> Iterator[tuple[str, bool]]:
    for line in raw_lines(data, encoding):
        try:
            yield line.decode(encoding.name), False
        except UnicodeDecodeError:
            yield line.decode(encoding.name, "replace"), True


def raw_lines(data: bytes, encoding: Encoding) -> Iterator[bytes]:
    """Whole lines, each with its end; the last one may have none."""
    if encoding.unit == 1:
        yield from io.BytesIO(data)
        return
    begin = 0
    while begin < len(data):
        end = begin
        while (end := data.find(encoding.newline, end)) >= 0 and (end - begin) % encoding.unit:
            end += 1
        stop = end + encoding.unit if end >= 0 else len(data)
        yield data[begin:stop]
        begin = stop
