"""What a stream adds to its records while they are framed: constant fields, Kafka headers, keys. No I/O.

Constant fields come before the record's own, so a record that has a field of the same name wins with every reader that
takes the last one. Records are not parsed for this: the opening brace is cut off, and `{"host":"web-1",` is framed in
its place. Only an empty object, which needs no comma, is put together by itself. A record that is larger than
`max_record_bytes` with its fields is over-long.

The key of a record is the field named so in the record itself; else the constant field of that name.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Literal, NamedTuple

import msgspec

from logfwd.definition import Stream, members
from logfwd.intake import jsonlines, rawlines
from logfwd.sources.formats.parts import MIN_RECORD_BYTES
from logfwd.sources.position import Block
from logfwd.sources.settings import LineSource
from streams.records.body import NO_HEADERS, NO_KEY, BytesLike, header_fields, key_field

MAX_KEY_BYTES = 1024
"""A record whose key would be longer has none."""

_BLANKS = b" \t\r\n"
_QUOTE, _BRACE, _CLOSING_BRACE = b'"{}'
_WITHOUT_BRACE, _WITHOUT_NEWLINE = itemgetter(slice(1, -1)), itemgetter(slice(0, -1))
_REST = itemgetter(slice(1, None))
_KEY = attrgetter("key")
_MOST_KNOWN_KEYS = 4096
_MOST_KNOWN_SETS = 64
_PORTION_BYTES = 256 * 1024
"""Lines are taken in portions that stay in a core's cache: short ones are a tenth faster so."""

_text = msgspec.json.Decoder(str).decode


class Part(NamedTuple):
    """The records of one block: their values but for the opening, how many lines were invalid or blank, and keys."""

    values: Sequence[BytesLike]
    opening: bytes
    keys: list[bytes]
    invalid: int
    blank: int


class Shape(msgspec.Struct, frozen=True):
    """What all records of a stream have in common.

    `fields` are members of a JSON object, without its braces. `is_raw`: lines are records as they are (rawlines.py), so
    they have neither fields nor keys.
    """

    fields: bytes = b""
    headers: bytes = NO_HEADERS
    key_field: str | None = None
    is_raw: bool = False

    @property
    def opening(self) -> bytes:
        """What takes the place of a record's opening brace; b"" if nothing is added to it."""
        return _opening(self.fields)


PLAIN = Shape()


def make_shape(stream: Stream) -> Shape:
    """The shape that a stream's definition asks for."""
    headers = [(name.encode(), text.encode()) for name, text in stream.headers.items()]
    is_raw = isinstance(stream.source, LineSource) and stream.source.format == "raw"
    return Shape(members(stream.constants), header_fields(headers), stream.key_field, is_raw)


def _opening(fields: bytes) -> bytes:
    return b"{" + fields + b"," if fields else b""


def split(shape: Shape, block: Block, *, invalid: Literal["wrap", "drop"], max_record_bytes: int) -> Part:
    """The records of a block, as jsonlines.py finds them, in this shape. Never raises for any bytes."""
    if shape.is_raw:
        return Part(
            rawlines.split(block.data, max_record_bytes=max_record_bytes, ends=block.ends).values, b"", [], 0, 0
        )
    origin = block.key, block.start, block.read_at_ms
    fields = b",".join(filter(None, (shape.fields, block.fields)))
    opening = _opening(fields)
    if opening:
        max_record_bytes = max(max_record_bytes - len(opening) + 1, MIN_RECORD_BYTES)
    elif shape.key_field is None and not block.is_checked:
        values, *counts = jsonlines.split(
            block.data, invalid=invalid, max_record_bytes=max_record_bytes, ends=block.ends, origin=origin
        )
        return Part(values, b"", [], *counts)
    keys = _keys(shape.key_field, fields)
    if block.ends is None and jsonlines.may_be_valid(block.data, max_record_bytes):
        part = _all_objects(block.data, opening, keys, is_checked=block.is_checked and shape.key_field is None)
        if part is not None:
            return part
    lines = jsonlines.split(
        block.data, invalid=invalid, max_record_bytes=max_record_bytes, ends=block.ends, origin=origin
    )
    found = [] if shape.key_field is None else [keys.of_record(value) for value in lines.values]
    return Part(*_opened(lines.values, opening), found, lines.invalid, lines.blank)


def _all_objects(data: bytes, opening: bytes, keys: _Keys, *, is_checked: bool) -> Part | None:
    """The records of a block in which each line is one, with nothing around it; None for other blocks.

    `is_checked`: each line is known to be an object, and no key is wanted.
    """
    reader, cut = io.BytesIO(data), _WITHOUT_BRACE if opening else _WITHOUT_NEWLINE  # the reader shares the block
    values: list[BytesLike] = []
    found: list[bytes] = []
    while lines := reader.readlines(_PORTION_BYTES):
        try:
            found += [] if is_checked else keys.of_records(lines)
        except (msgspec.DecodeError, RecursionError):
            return None
        cut_lines = list(map(cut, lines))
        first, last = {line[0] for line in cut_lines}, {line[-1] for line in cut_lines}
        if not (first <= {_QUOTE if opening else _BRACE} and last <= {_CLOSING_BRACE}):
            return None
        values += cut_lines
    return Part(values, opening, found, 0, 0)


def _opened(values: Sequence[BytesLike], opening: bytes) -> tuple[Sequence[BytesLike], bytes]:
    """These objects without their braces, and the opening; or, where one of them needs it, whole with b""."""
    if not opening:
        return values, b""
    whole = list(map(bytes, values))
    rests = list(map(_REST, whole))
    if {rest[0] for rest in rests} <= {_QUOTE}:
        return rests, opening
    return [opening + rest if rest.strip(_BLANKS) != b"}" else opening[:-1] + b"}" for rest in rests], b""


class _Keys:
    """Finds the key fields of records, and the faults of what is not a record."""

    def __init__(self, name: str | None, fields: bytes) -> None:
        self._name = name
        found: list[tuple[str, type, Any]] = [] if name is None else [("key", msgspec.Raw, msgspec.Raw(b""))]
        kind = msgspec.defstruct("Keyed", found, rename=None if name is None else {"key": name}, frozen=True, gc=False)
        self._decode: Callable[[BytesLike], Any] = msgspec.json.Decoder(kind).decode
        self._fields = _Fields()
        if name is not None:
            self._fields = _Fields(self.of_record(b"{" + fields + b"}"))

    def of_records(self, lines: Sequence[bytes]) -> list[bytes]:
        """The key field of each, none without a name. DecodeError or RecursionError if one is not an object."""
        objects = map(self._decode, lines)
        if self._name is None:
            deque(objects, maxlen=0)
            return []
        return list(map(self._fields.__getitem__, map(bytes, map(_KEY, objects))))

    def of_record(self, value: BytesLike) -> bytes:
        """The key field of a valid record."""
        try:
            return self._fields[bytes(self._decode(value).key)]
        except (msgspec.DecodeError, RecursionError):  # nested deeper than the record itself may be
            return self._fields[b""]


class _Fields(dict[bytes, bytes]):
    """Key fields by the JSON of the key; `default` is that of records without one."""

    def __init__(self, default: bytes = NO_KEY) -> None:
        self._default = default

    def __missing__(self, key: bytes) -> bytes:
        if not key or key == b"null":
            return self._default
        text = key
        if key[0] == _QUOTE:
            text = _text(key).encode() if b"\\" in key else key[1:-1]
        if len(text) > MAX_KEY_BYTES:
            return NO_KEY
        if len(self) >= _MOST_KNOWN_KEYS:
            self.clear()
        self[key] = field = key_field(text)
        return field


_keys = lru_cache(_MOST_KNOWN_SETS)(_Keys)
