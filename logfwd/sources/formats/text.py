"""Lines of text -> JSON lines, `{"message": line}`. No I/O.

Blank lines are skipped, as in every format. A line that is too long is several records (parts.py). The source cuts a
line that does not even fit into its reads; its parts are numbered on, and only the last ones say how many there are.
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


class State(msgspec.Struct, frozen=True, array_like=True):
    """What has to be known at a position to go on there: the offset of a line that was begun, and the next part."""

    line_start: int = 0
    part: int = 1


START = State()
_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(State).decode


class TextLines:
    """The lines of one file, in order."""

    can_end = False
    is_checked = True
    """Every line that `feed` and `end` return is a record."""

    def __init__(self, max_record_bytes: int, count: Count, origin: object = "") -> None:
        self._max_record_bytes, self._count, self._origin = max_record_bytes, count, origin
        self._state = START

    def restore(self, state: bytes, *_: object) -> None:
        """Begin where `state` was taken."""
        try:
            self._state = _decode_state(state) if state else START
        except msgspec.DecodeError:  # of another format
            self._state = START

    @property
    def has_open(self) -> bool:
        """True after the beginning of a line that is longer than a read."""
        return self._state != START

    def end(self, *, everything: bool) -> bytes:
        """No line follows: what was begun is over. No record waits for it."""
        if everything:
            self._state = START
        return b""

    def state(self) -> bytes:
        """What to begin with after the bytes that were fed so far."""
        return b"" if self._state == START else _encode_state(self._state)

    def feed(self, data: bytes, start: int, encoding: Encoding, *, cut: bool = False) -> bytes:
        """The JSON lines of whole lines that stand at `start` in the file; `cut`: of the beginning of a longer one."""
        lines, undecodable = decoded(data, encoding)
        if undecodable:
            self._count(UNDECODABLE, undecodable)
        if cut or self._state != START:
            return self._with_parts(lines, start, cut=cut)
        return self._records(lines, start)

    def _records(self, lines: list[str], start: int) -> bytes:
        messages = [Message(line) for line in lines if line and not line.isspace()]
        encoded = _encoder.encode_lines(messages)
        # an escape of a character has up to 6 bytes
        if max(map(len, lines), default=0) * 6 + 64 <= self._max_record_bytes or self._all_fit(encoded):
            return encoded
        return b"".join(self._each(message.message, start, number) for number, message in enumerate(messages))

    def _all_fit(self, encoded: bytes) -> bool:
        return max(map(len, io.BytesIO(encoded)), default=0) - 1 <= self._max_record_bytes

    def _each(self, line: str, start: int, number: int) -> bytes:
        record = _encoder.encode(Message(line))
        if len(record) <= self._max_record_bytes:
            return record + b"\n"
        self._count(CUT, 1)
        id_ = line_id(self._origin, start, number)
        return joined(in_parts("message", line, {}, self._max_record_bytes, id_))

    def _with_parts(self, lines: list[str], start: int, *, cut: bool) -> bytes:
        """The first line goes on with the one before; with `cut`, it is not yet its end."""
        begun = self._state if self._state != START else State(start)
        piece, *rest = lines or [""]
        if begun.part == 1:
            self._count(CUT, 1)
        id_ = line_id(self._origin, begun.line_start)
        records = in_parts("message", piece, {}, self._max_record_bytes, id_, first=begun.part, is_end=not cut)
        self._state = State(begun.line_start, begun.part + len(records)) if cut else START
        return joined(records) + self._records(rest, start)


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
