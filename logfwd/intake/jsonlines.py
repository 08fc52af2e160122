"""A block of JSON lines, or of JSON records whose ends are known -> records, as bytes.

A record is one line that holds exactly one JSON object in valid UTF-8, without the blanks and CR around it. Blank
lines are skipped. Every other line is *invalid*, as is one longer than `max_record_bytes`: it is dropped and counted,
or wrapped into an object of its own that keeps everything but the line end:

    {"message":"plain text","invalid":true}
    {"message_base64":"/w==","invalid":true}                      not UTF-8
    {"message":"begin…","invalid":true,"part":1,"parts":3,"line_id":"0f1e2d3c4b5a6978"}     too long; every part fits

Where the source knows where its records end (`ends`), they may hold newlines, which then mean nothing: all else applies
to each of them as to a line.

msgspec decides what is JSON: RFC 8259, and stricter where readers differ: a lone surrogate (`"\\ud800"`) is invalid,
and so is an object that nests about as deep as Python's recursion limit.

The fast path is a few passes at C speed over the block and a decoder call for each line; it holds only if every line
is a record. `decode_lines` would be a third faster but does not validate lines: it accepts two objects on one line, and
one object over two lines. The decoder does not look into strings, so UTF-8 is checked separately, for the whole block.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from logfwd.sources.formats.parts import MIN_RECORD_BYTES, in_parts, line_id
from streams.records.body import BytesLike

_BLANKS = b" \t\r\n"
_BRACE = ord("{")

_decoder = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode


class Lines(NamedTuple):
    """Records of a block in order, and how many of its lines were invalid (wrapped or dropped) or blank (skipped)."""

    values: Sequence[BytesLike]
    invalid: int = 0
    blank: int = 0


def split(
    block: bytes,
    *,
    invalid: Literal["wrap", "drop"],
    max_record_bytes: int,
    ends: Sequence[int] | None = None,
    origin: object = "",
) -> Lines:
    """The records of a block that ends in a newline, or in the last of `ends`. Never raises for any bytes.

    `ends` are offsets after each record, ascending. The values may be views into `block`. `origin` distinguishes this
    block from every other one, for the ids of lines in parts.
    """
    if max_record_bytes < MIN_RECORD_BYTES:
        raise ValueError(f"max_record_bytes is {max_record_bytes}, the least is {MIN_RECORD_BYTES}")
    if ends is not None:
        return _known_records(block, ends, invalid == "wrap", max_record_bytes, origin)
    is_utf8 = _is_utf8(block)
    if is_utf8 and _longest_line_fits(block, max_record_bytes):
        values = _all_valid(block)
        if values is not None:
            return Lines(values)
    return _line_by_line(block, is_utf8, invalid == "wrap", max_record_bytes, origin)


def may_be_valid(block: bytes, max_record_bytes: int) -> bool:
    """True for a block of lines that are UTF-8, and none of them too long."""
    return block.endswith(b"\n") and _is_utf8(block) and _longest_line_fits(block, max_record_bytes)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _longest_line_fits(block: bytes, max_record_bytes: int) -> bool:
    """False only if a line is longer; looks at few places, because one newline vouches for all bytes before it."""
    start = 0
    while len(block) - start > max_record_bytes:
        newline = block.rfind(b"\n", start, start + max_record_bytes + 1)
        if newline < 0:
            return False
        start = newline + 1
    return True


def _all_valid(block: bytes) -> Sequence[BytesLike] | None:
    """The records if each line is one and begins with its brace, else None: the lines need a closer look."""
    return _all_objects(list(io.BytesIO(block)))  # shares the block; half the cost of bytes.split


def _all_objects(lines: Sequence[bytes]) -> Sequence[BytesLike] | None:
    """One record for each of these, none of which is empty; None if one of them is not a record."""
    try:
        values = list(map(_decoder.decode, lines))
    except (msgspec.DecodeError, RecursionError):
        return None
    return values if {line[0] for line in lines} <= {_BRACE} else None


def _known_records(block: bytes, ends: Sequence[int], wrap: bool, max_record_bytes: int, origin: object) -> Lines:
    records = [block[start:end] for start, end in zip(chain((0,), ends), ends, strict=False)]
    is_utf8 = all(map(_is_utf8, records))  # each of them: a character may not reach over an end
    if is_utf8 and all(records) and max(map(len, records), default=0) <= max_record_bytes:
        values = _all_objects(records)
        if values is not None:
            return Lines(values)
    return _one_by_one(records, is_utf8, wrap, max_record_bytes, origin)


def _line_by_line(block: bytes, is_utf8: bool, wrap: bool, max_record_bytes: int, origin: object) -> Lines:
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()  # nothing follows the last newline
    return _one_by_one(lines, is_utf8, wrap, max_record_bytes, origin)


def _one_by_one(lines: Sequence[bytes], is_utf8: bool, wrap: bool, max_record_bytes: int, origin: object) -> Lines:
    values: list[BytesLike] = []
    invalid = blank = 0
    for number, line in enumerate(lines):
        record = line.strip(_BLANKS)
        if not record:
            blank += 1
        elif len(record) <= max_record_bytes and _is_object(record) and (is_utf8 or _is_utf8(record)):
            values.append(record)
        else:
            invalid += 1
            if wrap:
                values.extend(_wrapped(line.removesuffix(b"\r"), max_record_bytes, (origin, number)))
    return Lines(values, invalid, blank)


def _is_object(record: bytes) -> bool:
    if not record.startswith(b"{"):
        return False
    try:
        _decoder.decode(record)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _wrapped(line: bytes, max_record_bytes: int, origin: object) -> list[bytes]:
    """The line as one object, or as several where one would be too large."""
    try:
        name, text = "message", line.decode()
    except UnicodeDecodeError:
        name, text = "message_base64", base64.b64encode(line).decode()
    if len(text) < max_record_bytes and len(whole := _encode({name: text, "invalid": True})) <= max_record_bytes:
        return [whole]
    return in_parts(name, text, {"invalid": True}, max_record_bytes, line_id(origin))
