"""Encodings of text: how lines end in them, and which byte order mark a file may begin with.

A file is cut into lines before anything is decoded. In most encodings a newline is the byte 0x0A and nothing else is;
in UTF-16 and UTF-32 it is one code unit, so lines end at multiples of its size, counted from the start of the file.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

FIRST_BYTES = 4
"""How many bytes at the start of a file decide about its byte order."""


class Encoding(NamedTuple):
    """A codec, and what is known of its bytes."""

    name: str
    newline: bytes
    bom: bytes = b""

    @property
    def unit(self) -> int:
        """Bytes of a code unit."""
        return len(self.newline)


UTF_8 = Encoding("utf-8", b"\n", codecs.BOM_UTF8)
_UTF_16 = {
    "little": Encoding("utf-16-le", b"\n\0", codecs.BOM_UTF16_LE),
    "big": Encoding("utf-16-be", b"\0\n", codecs.BOM_UTF16_BE),
}
_UTF_32 = {
    "little": Encoding("utf-32-le", b"\n\0\0\0", codecs.BOM_UTF32_LE),
    "big": Encoding("utf-32-be", b"\0\0\0\n", codecs.BOM_UTF32_BE),
}
_WIDE = {"utf-16": _UTF_16, "utf-32": _UTF_32}
_FIXED = {each.name: each for family in _WIDE.values() for each in family.values()} | {
    "utf-8": UTF_8,
    "utf-8-sig": UTF_8,
}


def check_encoding(name: str) -> None:
    """Raise ValueError for a name that is not a codec of text, or of which lines cannot be cut."""
    try:
        canonical = codecs.lookup(name).name
        can_cut = canonical in _WIDE or canonical in _FIXED or "a\n".encode(canonical) == b"a\n"
        can_cut = can_cut and canonical != "utf-7"  # it yields characters that UTF-8 does not have
    except (LookupError, ValueError, TypeError):
        can_cut = False
    if not can_cut:
        raise ValueError(
            f"{name!r} is not an encoding of lines of text; write one of Python's, as in "
            "'utf-8', 'latin-1', 'cp1252', 'shift_jis' or 'utf-16'"
        )


def encoding_of(name: str, first: bytes) -> Encoding:
    """The encoding of a file that begins with these bytes; without a mark, UTF-16 and UTF-32 are little-endian."""
    canonical = codecs.lookup(name).name
    if family := _WIDE.get(canonical):
        return next((each for each in family.values() if first.startswith(each.bom)), family["little"])
    return _FIXED.get(canonical) or Encoding(canonical, b"\n")


def end_of_lines(data: bytes | bytearray, begin: int, encoding: Encoding) -> int:
    """The index after the last newline in `data[begin:]`, where `begin` is at a code unit; 0 if there is none."""
    unit, stop = encoding.unit, len(data)
    while (found := data.rfind(encoding.newline, begin, stop)) >= 0:
        if (found - begin) % unit == 0:
            return found + unit
        stop = found + unit - 1  # a part of two other code units
    return 0


def whole_characters(data: bytes, encoding: Encoding) -> int:
    """How many of these bytes are whole characters: a line that is too long is not cut within one."""
    decoder = codecs.getincrementaldecoder(encoding.name)("replace")
    decoder.decode(data)
    pending = len(decoder.getstate()[0])
    return len(data) - pending or len(data)
