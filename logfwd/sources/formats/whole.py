"""Lines of containers of which each is a whole record, many at a time. No I/O.

Nearly all lines of nearly all containers are of this kind, and hold either JSON objects or text. They become records in
a few passes at C speed, at half of the cost of joined.py's way, which takes a closer look at each. The records are the
same: wherever that is not certain at a glance, there are none, and the lines are left to joined.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from logfwd.sources.formats import containers

PORTION_BYTES = 32 * 1024
"""Lines that are taken together: small enough for a core's cache, and one of another kind holds few others up."""

_STREAMS = {"stdout", "stderr"}
_TIME_CHARACTERS = b"0123456789TZ:.+-"  # none of them is escaped in JSON
_TIME_LENGTHS = {*range(len("2016-10-06T00:17:09Z"), 41)}
_ESCAPE_BYTES = 6
_SPARE_BYTES = 96
"""More than what is put around a text: time, stream, and the names of the fields."""
_BLANKS = " \t"

_encode_lines = msgspec.json.Encoder().encode_lines


class _Known(msgspec.Struct, gc=False):
    """Which fields an object has already."""

    time: Raw | UnsetType = UNSET
    stream: Raw | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Known).decode


class _Message(msgspec.Struct, gc=False):
    """The record of a text."""

    message: str
    time: str
    stream: str


class _Rows(NamedTuple):
    """The lines' parts, one after the other."""

    times: Sequence[str]
    streams: Sequence[str]
    contents: Sequence[str]


def portions(data: bytes) -> Iterator[bytes]:
    """Whole lines, cut where a line ends."""
    begin = 0
    while begin < len(data):
        end = data.rfind(b"\n", begin, begin + PORTION_BYTES) + 1 or data.find(b"\n", begin) + 1 or len(data)
        yield data[begin:end]
        begin = end


def cri(data: bytes, max_record_bytes: int) -> bytes | None:
    """The JSON lines, but for the last newline, that these lines of `cri` become; None: they need a closer look."""
    try:
        lines = _lines(data.decode(), max_record_bytes)
        times, streams, tags, contents = zip(*[line.split(" ", 3) for line in lines], strict=True)
    except ValueError:
        return None
    return _records(_Rows(times, streams, contents)) if set(tags) == {"F"} else None


def docker(data: bytes, max_record_bytes: int) -> bytes | None:
    """The same for lines of `docker`."""
    try:
        found = [containers.decode_docker(line) for line in io.BytesIO(data)]
        logs = [each.log for each in found]
        contents = _lines("".join(logs), max_record_bytes)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    if len(contents) != len(found) or not all(each.attrs is UNSET and each.log[-1:] == "\n" for each in found):
        return None
    return _records(_Rows([each.time for each in found], [each.stream for each in found], contents))


WHOLE: dict[containers.Parse, Callable[[bytes, int], bytes | None]] = {containers.cri: cri, containers.docker: docker}
"""By the function that takes one line apart."""


def _lines(text: str, max_record_bytes: int) -> list[str]:
    """The lines of a text; ValueError if there is something special about their ends, or one may be too long."""
    lines = text.split("\n")
    if lines.pop() or "\r" in text or max(map(len, lines)) * _ESCAPE_BYTES + _SPARE_BYTES > max_record_bytes:
        raise ValueError
    return lines


def _records(rows: _Rows) -> bytes | None:
    if not set(rows.streams) <= _STREAMS or "".join(rows.times).encode().translate(None, _TIME_CHARACTERS):
        return None
    if not (set(map(len, rows.times)) <= _TIME_LENGTHS and {time[10] for time in rows.times} == {"T"}):
        return None
    return _objects(rows) if rows.contents[0].startswith("{") else _texts(rows)


def _objects(rows: _Rows) -> bytes | None:
    """Objects with what they lack at their end, if all lack the same."""
    begins, ends = {each[:2] for each in rows.contents}, {each[-2:] for each in rows.contents}
    if begins != {'{"'} or not all(end[1:] == "}" and end[0] not in _BLANKS for end in ends):
        return None
    try:
        known = list(map(_decode, rows.contents))
    except (msgspec.DecodeError, RecursionError):
        return None
    lacking = {(each.time is UNSET, each.stream is UNSET) for each in known}
    if len(lacking) != 1:
        return None
    each_one = zip(*rows, strict=True)
    match lacking.pop():
        case True, True:
            made = [f'{content[:-1]},"time":"{time}","stream":"{stream}"}}' for time, stream, content in each_one]
        case True, False:
            made = [f'{content[:-1]},"time":"{time}"}}' for time, _, content in each_one]
        case False, True:
            made = [f'{content[:-1]},"stream":"{stream}"}}' for _, stream, content in each_one]
        case _:
            made = list(rows.contents)
    return "\n".join(made).encode()


def _texts(rows: _Rows) -> bytes | None:
    """Texts as messages, if none may be an object or blank."""
    if {"", "{"} & {each.lstrip()[:1] for each in rows.contents}:
        return None
    return _encode_lines([_Message(content, time, stream) for time, stream, content in zip(*rows, strict=True)])[:-1]
