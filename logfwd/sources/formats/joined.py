"""Lines of one file that are joined to records: parts of container lines, and multi-line records. No I/O.

Records are joined for each stream (stdout, stderr) by itself, so lines of the two may interleave. A record that is not
whole yet is *open*. The position in the file moves on nevertheless: `state`, which is stored with it, holds offset and
length of each line of the open records, and these are read again at a start. Lines that came from the file before a
rotation are stored themselves. So wherever a forwarder is killed, no record is lost, repeated or split.

Bounds: an open record that has `max_bytes`, `max_lines` or 1000 lines of the file leaves as a part (parts.py), and what
follows is its next part. But the pieces of a single line wait for its end, so that each part can say how many there
are: up to MAX_OPEN_BYTES, for MOST_LONG records of a source at a time, and unless it came from the file before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple
from weakref import WeakSet

import msgspec
from msgspec import Meta

from logfwd.sources.formats.containers import Parse, Piece
from logfwd.sources.formats.contents import record_of
from logfwd.sources.formats.encodings import UTF_8, Encoding, whole_characters
from logfwd.sources.formats.parts import in_parts, line_id
from logfwd.sources.formats.text import CUT, UNDECODABLE, Count, joined, raw_lines
from logfwd.sources.formats.whole import WHOLE, portions
from streams.config.units import MIB
from streams.decoding import MALFORMED

MAX_PARTS = 1000
MAX_OPEN_BYTES, MOST_LONG = 16 * MIB, 4
"""How long a line in pieces may be, and how many over `max_bytes` a source may have open: they are in memory."""

Read = Callable[[int, int], bytes]
"""Bytes of the file: offset and length."""


class Rules(NamedTuple):
    """How lines are parsed and joined. `begins`: whether a line begins a record; None if every line is one."""

    parse: Parse | None
    begins: Callable[[str], bool] | None
    max_lines: int
    max_bytes: int
    max_record_bytes: int


_Offset = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Length = Annotated[int, Meta(ge=0, lt=1 << 30)]


class Saved(msgspec.Struct, array_like=True, frozen=True):
    """An open record in a position. `lines`: offset, length, and the bytes themselves if they are not in this file."""

    stream: str
    id: str
    lines: list[tuple[_Offset, _Length, bytes]]
    part: int = 1
    is_within_line: bool = False
    rest: bytes = b""
    fields: bytes = b""


class _Open:
    """An open record: whole lines (`texts`), and the pieces of one that is not (`pieces`)."""

    def __init__(self, stream: str, id_: str, fields: dict[str, object]) -> None:
        self.stream, self.id, self.fields = stream, id_, fields
        self.texts: list[str] = []
        self.pieces: list[bytes] = []
        self.size = 0
        self.lines: list[tuple[int, bytes, bool]] = []
        self.part = 1
        self.is_within_line = False
        self.began_within_line, self.rest = False, b""  # where the last part ended: before `lines`

    def add(self, piece: Piece, offset: int, raw: bytes, *, is_carried: bool) -> None:
        self.pieces.append(piece.content)
        self.size += len(piece.content)
        self.lines.append((offset, raw, is_carried))

    def saved(self, *, with_bytes: bool = False) -> Saved:
        lines: list[tuple[int, int, bytes]] = []
        for offset, raw, is_carried in self.lines:
            if is_carried or with_bytes:
                lines.append((offset, len(raw), raw))
            elif lines and not lines[-1][2] and lines[-1][0] + lines[-1][1] == offset:
                lines[-1] = (lines[-1][0], lines[-1][1] + len(raw), b"")
            else:
                lines.append((offset, len(raw), b""))
        fields = _encode_fields(self.fields) if self.part > 1 else b""
        return Saved(self.stream, self.id, lines, self.part, self.began_within_line, self.rest, fields)


_encode_fields = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, object]).decode
_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(list[Saved]).decode


def _fields_of(saved: Saved) -> dict[str, object]:
    return _decode_fields(saved.fields) if saved.fields else {}


LongRecords = WeakSet[_Open]
"""The open records of one source that are longer than `max_bytes`."""


class JoinedLines:
    """The lines of one file, in order. `long` is common to all files of the source."""

    def __init__(self, rules: Rules, count: Count, origin: object = "", long: LongRecords | None = None) -> None:
        self._rules, self._count, self._origin = rules, count, origin
        self._long = LongRecords() if long is None else long
        self._whole = WHOLE.get(rules.parse) if rules.begins is None and rules.parse is not None else None
        self._encoding = UTF_8
        self._open: dict[str, _Open] = {}
        self._records: list[bytes] = []
        self._has_others = False
        self.is_checked = True
        """Whether every line that `feed` or `end` returned last is a record; others are not in the format."""

    # -- positions -----------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """What to begin with after the bytes that were fed so far."""
        return _encode_state([each.saved() for each in self._open.values()]) if self._open else b""

    def restore(self, state: bytes, read: Read, encoding: Encoding) -> None:
        """Begin where `state` was taken, reading the lines of open records again."""
        self._encoding = encoding
        try:
            saved = _decode_state(state) if state else []
            for each in saved:
                _fields_of(each)
        except MALFORMED:  # of another format
            saved = []
        self._resume(saved, read, is_carried=False)

    def give(self) -> list[Saved]:
        """The open records, with their lines, for the file that goes on with them; none is open here afterwards."""
        saved = [each.saved(with_bytes=True) for each in self._open.values()]
        self._open.clear()
        return saved

    def inherit(self, saved: Sequence[Saved]) -> bytes:
        """Go on with the open records of the file before a rotation; what is too long for a position are JSON lines."""
        self._resume(saved, lambda _, __: b"", is_carried=True)
        return self._taken()

    def _resume(self, saved: Sequence[Saved], read: Read, *, is_carried: bool) -> None:
        for each in saved:
            if each.stream in self._open:  # two files before this one: the older record will not go on
                self._close(self._open[each.stream])
            record = self._open[each.stream] = _Open(each.stream, each.id, {})
            record.part = each.part
            record.is_within_line = record.began_within_line = each.is_within_line
            record.fields = _fields_of(each)
            if each.rest:
                record.pieces, record.rest = [each.rest], each.rest
            for offset, length, raw in each.lines:
                for line in raw_lines(raw or read(offset, length), self._encoding):
                    self._line(line, offset, is_carried=is_carried or bool(raw))
                    offset += len(line)  # noqa: PLW2901

    # -- joining -------------------------------------------------------------------------------------------------

    @property
    def has_open(self) -> bool:
        """True while a record is open."""
        return bool(self._open)

    @property
    def can_end(self) -> bool:
        """True while a record is open that consists of whole lines, so that it may be whole itself."""
        return any(self._may_be_whole(each) for each in self._open.values())

    @staticmethod
    def _may_be_whole(record: _Open) -> bool:
        return not record.pieces and (bool(record.texts) or record.part > 1) and not record.is_within_line

    def feed(self, data: bytes, start: int, encoding: Encoding) -> bytes:
        """The JSON lines of the records that whole lines, which stand at `start` in the file, have made whole."""
        self._encoding = encoding
        for portion in portions(data) if self._whole is not None else (data,):
            self._feed(portion, start)
            start += len(portion)
        return self._taken()

    def _feed(self, data: bytes, start: int) -> None:
        if self._whole is not None and not self._open:
            records = self._whole(data, self._rules.max_record_bytes)
            if records is not None:
                self._records.append(records)
                return
        for raw in raw_lines(data, self._encoding):
            self._line(raw, start, is_carried=False)
            start += len(raw)

    def end(self, *, everything: bool) -> bytes:
        """No line follows for now: the JSON lines of open records that may be whole, or of all of them."""
        for each in list(self._open.values()):
            if everything or self._may_be_whole(each):
                self._close(each)
        return self._taken()

    def _taken(self) -> bytes:
        records, self._records = self._records, []
        self.is_checked, self._has_others = not self._has_others, False
        return joined(records)

    def _line(self, raw: bytes, offset: int, *, is_carried: bool) -> None:
        rules, line = self._rules, raw.removesuffix(self._encoding.newline)
        piece = Piece("", line, True, {}) if rules.parse is None else rules.parse(line)
        if piece is None:
            self._records.append(line.removesuffix(b"\r"))  # it is judged when it is sealed, as in format json
            self._has_others = True
            return
        record = self._open.get(piece.stream)
        if record is None and piece.is_end and rules.begins is None:
            self._emit_whole(self._text(piece.content), piece.fields, offset)
            return
        if record is not None and self._ends_before(record, piece):
            self._close(record)
            record = None
        if record is None:
            id_ = line_id(self._origin, piece.stream, offset)
            record = self._open[piece.stream] = _Open(piece.stream, id_, piece.fields)
        record.fields = record.fields or piece.fields
        record.add(piece, offset, raw, is_carried=is_carried)
        if piece.is_end:
            self._end_of_line(record)
            if rules.begins is None:
                self._close(record)
                return
        if self._is_full(record, is_carried=is_carried):
            self._emit_part(record)

    def _is_full(self, record: _Open, *, is_carried: bool) -> bool:
        rules = self._rules
        if len(record.texts) >= rules.max_lines or len(record.lines) >= MAX_PARTS or record.size >= MAX_OPEN_BYTES:
            return True
        if record.size < rules.max_bytes:
            return False
        if rules.begins is not None or is_carried or record.part > 1:
            return True
        if record not in self._long and len(self._long) >= MOST_LONG:
            return True
        self._long.add(record)
        return False

    def _ends_before(self, record: _Open, piece: Piece) -> bool:
        """True if a piece begins a line that begins the next record."""
        begins = self._rules.begins
        if begins is None or record.pieces or record.is_within_line or not (record.texts or record.part > 1):
            return False
        return begins(piece.content.decode(self._codec, "replace").removesuffix("\r"))

    @property
    def _codec(self) -> str:
        return self._encoding.name if self._rules.parse is None else UTF_8.name

    def _text(self, content: bytes) -> str:
        """A whole line; what cannot be decoded is replaced, and its record is counted."""
        try:
            return content.decode(self._codec).removesuffix("\r")
        except UnicodeDecodeError:
            self._count(UNDECODABLE, 1)
            return content.decode(self._codec, "replace").removesuffix("\r")

    def _end_of_line(self, record: _Open) -> None:
        text = self._text(b"".join(record.pieces))
        if record.part > 1 and not record.texts and not record.is_within_line:
            text = "\n" + text  # a part that is not the first begins here, with a line of its own
        record.texts.append(text)
        record.pieces, record.is_within_line = [], False

    def _content(self, record: _Open) -> str:
        if record.pieces:
            self._end_of_line(record)
        return "\n".join(record.texts)

    def _close(self, record: _Open) -> None:
        """The record is whole."""
        del self._open[record.stream]
        text = self._content(record)
        if record.part == 1:
            self._emit_whole(text, record.fields, -1, record.id)
            return
        self._records += self._parts(record, text, is_end=True)

    def _emit_whole(self, text: str, fields: dict[str, object], offset: int, id_: str = "") -> None:
        if not text or text.isspace():
            return
        made = record_of(text, fields)
        if len(made) <= self._rules.max_record_bytes:
            self._records.append(made)
            return
        self._count(CUT, 1)
        id_ = id_ or line_id(self._origin, offset)
        self._records += in_parts("message", text, fields, self._rules.max_record_bytes, id_)

    def _emit_part(self, record: _Open) -> None:
        """What is there of the record leaves as a part, but for the beginning of a character."""
        if record.part == 1:
            self._count(CUT, 1)
        content, rest = b"".join(record.pieces), b""
        is_within_line = bool(record.pieces) or record.is_within_line
        if content:
            length = whole_characters(content, self._encoding if self._rules.parse is None else UTF_8)
            content, rest = content[:length], content[length:]
        record.pieces = [content] if content else []
        text = self._content(record)
        self._records += self._parts(record, text, is_end=False)
        record.texts, record.lines, record.size = [], [], 0
        self._long.discard(record)
        record.is_within_line = record.began_within_line = is_within_line
        record.pieces, record.rest = [rest] if rest else [], rest

    def _parts(self, record: _Open, text: str, *, is_end: bool) -> list[bytes]:
        parts = in_parts(
            "message",
            text,
            record.fields,
            self._rules.max_record_bytes,
            record.id,
            first=record.part,
            is_end=is_end,
        )
        record.part += len(parts)
        return parts
