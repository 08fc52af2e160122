"""Text that is too long for one record -> several records, each a JSON object, with an id that they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from streams.config.units import KIB

MIN_RECORD_BYTES = 256
"""The least `max_record_bytes`: every part must have room for its own fields."""

_CUT_CHARACTERS = 4  # of base64: they encode 3 bytes
_LEAST_ROOM = 6 * _CUT_CHARACTERS  # an escape has up to 6 bytes
_STEP_CHARACTERS = 64 * KIB

_encode = msgspec.json.Encoder().encode


def line_id(*origin: object) -> str:
    """An id for the parts of one line, from what distinguishes it from every other line."""
    return blake2b(repr(origin).encode(), digest_size=8).hexdigest()


def in_parts(
    name: str,
    text: str,
    fields: Mapping[str, object],
    max_record_bytes: int,
    id_: str,
    *,
    first: int = 1,
    is_end: bool = True,
) -> list[bytes]:
    """Records `{name: piece, **fields, "part": n, "parts": m, "line_id": id}`, of at most `max_record_bytes` each.

    If the line began before (`first` > 1), only its last record has `parts`; if it goes on (not `is_end`), none has.
    Where the fields alone leave no room, they are left out.
    """
    numbers = {"part": first + len(text), "parts": first + len(text), "line_id": id_}
    room = max_record_bytes - len(_encode({name: "", **fields, **numbers}))
    if room < _LEAST_ROOM:
        fields, room = {}, max_record_bytes - len(_encode({name: "", **numbers}))
    pieces = _pieces(text, room)
    last = first + len(pieces) - 1
    return [
        _encode(
            {name: piece, **fields, "part": number}
            | ({"parts": last} if is_end and (first == 1 or number == last) else {})
            | {"line_id": id_}
        )
        for number, piece in enumerate(pieces, first)
    ]


def _pieces(text: str, room_bytes: int) -> list[str]:
    """Equal pieces, cut again where escapes still make one too large for `room_bytes`.

    Cuts fall on multiples of four characters, so that each piece of base64 is valid alone.
    """
    escaped_bytes = _escaped_bytes(text)
    if escaped_bytes <= room_bytes:
        return [text]
    room_bytes -= room_bytes % _CUT_CHARACTERS
    step = _ceil(_ceil(len(text), _ceil(escaped_bytes, room_bytes)), _CUT_CHARACTERS) * _CUT_CHARACTERS
    parts = (text[start : start + step] for start in range(0, len(text), step))
    return [piece for part in parts for piece in _pieces(part, room_bytes)]


def _escaped_bytes(text: str) -> int:
    """Bytes of a string in JSON, without its quotes; in steps, as other threads wait for the end of each."""
    steps = range(0, len(text), _STEP_CHARACTERS)
    return sum(len(_encode(text[at : at + _STEP_CHARACTERS])) - 2 for at in steps)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
