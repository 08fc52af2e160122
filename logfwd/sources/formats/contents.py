"""The content of a line, or of several joined ones -> a record. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, UnsetType

_encode = msgspec.json.Encoder().encode
_BLANKS = b" \t\r\n"


class _Known(msgspec.Struct):
    """Which fields an object has already."""

    time: Raw | UnsetType = UNSET
    stream: Raw | UnsetType = UNSET
    attrs: Raw | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Known).decode


def record_of(text: str, fields: Mapping[str, object], *, is_whole: bool = True) -> bytes:
    """A JSON object as it is, with those of `fields` that it lacks at its end; any other text as `message`.

    Without fields (format text) an object is text like any other; so is one that is not whole.
    """
    if fields and is_whole and text.lstrip().startswith("{"):
        content = text.encode().strip(_BLANKS)
        try:
            known = _decode(content)
        except (msgspec.DecodeError, RecursionError):
            pass
        else:
            lacking = {name: value for name, value in fields.items() if getattr(known, name) is UNSET}
            return _extended(content.replace(b"\n", b" "), lacking)  # only white space may be a newline there
    return _encode({"message": text, **fields})


def _extended(content: bytes, fields: Mapping[str, object]) -> bytes:
    if not fields:
        return content
    inside = content[:-1].rstrip(_BLANKS)
    comma = b"" if inside == b"{" else b","
    return inside + comma + _encode(fields)[1:]
