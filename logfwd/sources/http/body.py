"""A body → parts that become blocks: whole records, cut where only the body itself and its type decide.

    application/x-ndjson    one record in each line
    application/json        an array: one record for each element; or one object; or one object in each line
    text/plain              one record for each line: {"message": line}

A part ends at an offset in the decoded body. A repeat of the request continues after a part that is durable already,
so parts depend on nothing that a reload may change, except for their size: every end of a record is a place to go on.
"""

from __future__ import annotations

import codecs
import contextlib
import enum
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, count
from operator import add
from typing import NamedTuple

import msgspec
from blake3 import blake3

from logfwd.sources.http.answers import malformed, not_supported, too_large
from streams.config.units import KIB

DIGEST_BYTES = 16
MOST_RECORDS = 500_000
"""In one body: each costs its own time and memory, however short it is."""
PIECE_BYTES, PIECE_COMMAS = 128 * KIB, 2048
"""An array is decoded in pieces of about this size, with at most so many elements: meanwhile no other thread runs."""

_BLANKS = b" \t\r\n"
_BOM = codecs.BOM_UTF8
_FIRST = re.compile(rb"[ \t\r\n]*")
_BETWEEN = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_array = msgspec.json.Decoder(list[msgspec.Raw])
_anything = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode


class Kind(enum.Enum):
    """How a body is cut into records."""

    LINES = "lines"
    JSON = "json"
    TEXT = "text"


class BodyType(NamedTuple):
    """What Content-Type says."""

    kind: Kind
    charset: str = "utf-8"


class Part(NamedTuple):
    """Whole records, the offset in the body after them, and where they end if not at newlines."""

    data: bytes
    end: int
    ends: array[int] | None = None


_KINDS = {
    "application/x-ndjson": Kind.LINES,
    "application/ndjson": Kind.LINES,
    "application/jsonl": Kind.LINES,
    "application/x-jsonlines": Kind.LINES,
    "application/json": Kind.JSON,
    "text/plain": Kind.TEXT,
}
_CHARSETS = ("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252")  # as codecs.lookup names them: no newline inside


def body_type(content_type: str) -> BodyType:
    """What a Content-Type means; without one the body is taken as application/json. Refuses others."""
    name, *parameters = (part.strip() for part in content_type.split(";"))
    kind = _KINDS.get(name.lower() or "application/json")
    if kind is None:
        raise not_supported(
            f"Content-Type {name!r} is not supported; use application/x-ndjson (one JSON object in each line), "
            "application/json (an object or an array of objects) or text/plain"
        )
    charset = "utf-8"
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            charset = _charset(value.strip().strip('"'))
    if kind is not Kind.TEXT and charset not in ("utf-8", "ascii"):
        raise not_supported("JSON is UTF-8 (RFC 8259); only text/plain may have another charset")
    return BodyType(kind, charset)


def _charset(name: str) -> str:
    try:
        charset = codecs.lookup(name).name
    except (LookupError, ValueError):
        charset = ""
    if charset not in _CHARSETS:
        raise not_supported(f"charset {name!r} is not supported; use {', '.join(_CHARSETS)}")
    return charset


def parts(body: bytes, kind: BodyType, *, start: int = 0, block_bytes: int, max_record_bytes: int) -> Iterator[Part]:
    """The records after an offset at which a part ended before (0: all); refuses what is not JSON but should be.

    Each part is a step of this work. It is larger than `block_bytes` only if it has a single record; the last one ends
    where the body does.
    """
    if kind.kind is Kind.JSON and (first := _first(body)) is not None:
        yield from _to_the_end(body, _elements(body, start, block_bytes) if first == b"[" else _object(body, start))
        return
    is_text = kind.kind is Kind.TEXT
    size = min(block_bytes, PIECE_BYTES) if is_text else block_bytes
    lines = 0
    for part in _lines(body, start or _after_bom(body), size):
        lines += part.data.count(b"\n")
        if lines > MOST_RECORDS:
            raise _too_many()
        yield part._replace(data=_messages(part.data, kind.charset, max_record_bytes)) if is_text else part


def _after_bom(body: bytes) -> int:
    return len(_BOM) if body.startswith(_BOM) else 0


def _first(body: bytes) -> bytes | None:
    """What a JSON body begins with, "[" or "{"; None if it holds an object in each line. Refuses anything else."""
    blanks = _FIRST.match(body, _after_bom(body))
    assert blanks is not None
    first = body[blanks.end() : blanks.end() + 1]
    if first == b"[":
        return first
    if first != b"{":
        raise malformed("the body is not a JSON object or array; for other lines use Content-Type text/plain")
    if _is_json(body[blanks.end() : body.find(b"\n", blanks.end()) + 1]):
        return None
    try:
        _anything.decode(memoryview(body)[_after_bom(body) :])
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(error) from error
    return first


def _is_json(line: bytes) -> bool:
    try:
        _anything.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _not_json(error: Exception) -> Exception:
    text = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return malformed(f"the body is not valid JSON: {text}")


def _to_the_end(body: bytes, found: Iterator[Part]) -> Iterator[Part]:
    """The last of these parts has what follows its last record."""
    before = next(found, None)
    for part in found:
        if before is not None:
            yield before
        before = part
    if before is not None:
        yield before._replace(end=len(body))


def _object(body: bytes, start: int) -> Iterator[Part]:
    if start < len(body):
        record = body[_after_bom(body) :].strip(_BLANKS)
        yield Part(record, len(body), array("Q", [len(record)]))


def _elements(body: bytes, start: int, block_bytes: int) -> Iterator[Part]:
    """An array's elements: msgspec gives each as it is written, and they follow each other in the body."""
    begin = body.index(b"[", _after_bom(body)) + 1
    for elements, at, end in _some_elements(body, begin, min(block_bytes, PIECE_BYTES)):
        lengths = list(map(len, elements))
        ends = _ends_in(body, at, end, lengths)
        first = bisect_right(ends, start)
        sizes = [*accumulate(lengths, initial=0)]
        while first < len(ends):
            last = max(bisect_right(sizes, sizes[first] + block_bytes) - 1, first + 1)
            yield Part(b"".join(elements[first:last]), ends[last - 1], array("Q", accumulate(lengths[first:last])))
            first = last


def _ends_in(body: bytes, at: int, end: int, lengths: Sequence[int]) -> Sequence[int]:
    """Where elements of these lengths, all between these offsets, end in a body."""
    if sum(lengths) + len(lengths) - 1 == end - at:  # nothing but a comma between each two
        return list(map(add, accumulate(lengths), count(at)))
    ends = []
    at = _FIRST.match(body, at).end()  # type: ignore[union-attr]
    for length in lengths:
        ends.append(at + length)
        at = _BETWEEN.match(body, at + length).end()  # type: ignore[union-attr]
    return ends


def _some_elements(body: bytes, begin: int, size: int) -> Iterator[tuple[Sequence[msgspec.Raw], int, int]]:
    """The elements of an array that begins before this offset, with where they begin and end; refuses other bodies.

    They come in pieces of at most about this size.
    """
    at, known = begin, 0
    while at <= len(body):
        next_size = min(size, len(body) - at)
        commas = body.count(b",", at, at + next_size)
        elements, end = _next_elements(body, at, next_size * PIECE_COMMAS // max(commas, PIECE_COMMAS))
        if not elements and (at > begin or end < len(body)):  # nothing beside a comma
            raise _fault_of(body)
        known += len(elements)
        if known > MOST_RECORDS:
            raise _too_many()
        yield elements, at, end if end < len(body) else body.rindex(b"]")
        at = end + 1


def _next_elements(body: bytes, at: int, size: int) -> tuple[Sequence[msgspec.Raw], int]:
    """The next elements, and where they end: at a comma, or with the body.

    What ends at a comma is an array of its own only if that comma is between two elements: within a string, or an
    element of several parts, something would be left open.
    """
    view = memoryview(body)
    while size < len(body) - at:
        for comma in _commas(body, at, at + size):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                return _array.decode(b"[" + view[at:comma] + b"]"), comma
        size *= 2  # for an element that is larger than this
    try:
        return _array.decode(b"[" + view[at:]), len(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _fault_of(body) from error


def _commas(body: bytes, begin: int, end: int) -> Iterator[int]:
    """Commas that may be between two elements, the likeliest first: each wrong one costs a look at the whole piece."""
    tried = set[int]()
    for separator in (b"},{", b"},\n", b"}, ", b"},", b","):
        found = body.rfind(separator, begin, end)
        if found >= 0 and (comma := found + separator.index(b",")) not in tried:
            tried.add(comma)
            yield comma


def _fault_of(body: bytes) -> Exception:
    """What the decoder says of a whole body that it refuses."""
    try:
        _anything.decode(memoryview(body)[_after_bom(body) :])
    except (msgspec.DecodeError, RecursionError) as error:
        return _not_json(error)
    return malformed("the body is not valid JSON")


def _too_many() -> Exception:
    return too_large(f"the body has more than {MOST_RECORDS:,} records; send fewer at a time")


def _lines(body: bytes, start: int, block_bytes: int) -> Iterator[Part]:
    while start < len(body):
        end = body.rfind(b"\n", start, start + block_bytes) + 1 or body.find(b"\n", start) + 1 or len(body)
        if len(body) - start <= block_bytes:
            end = len(body)
        data = body[start:end]
        yield Part(data if data.endswith(b"\n") else data + b"\n", end)
        start = end


def _messages(lines: bytes, charset: str, max_record_bytes: int) -> bytes:
    """Lines of text as JSON lines. One that is too long for a record stays as it is: it is wrapped in several later."""
    made = []
    for line in lines.removesuffix(b"\n").split(b"\n"):
        text = line.removesuffix(b"\r")
        if text.strip():
            record = _encode({"message": text.decode(charset, "replace")})
            made.append(record if len(record) <= max_record_bytes else text)
    return b"\n".join([*made, b""])


def digests(body: bytes, kind: BodyType, ends: Iterable[int]) -> Iterator[bytes]:
    """For each of these ascending offsets, the digest of the body up to there, and of how it is read."""
    hashed, done = blake3(f"{kind.kind.value}\0{kind.charset}\0".encode()), 0
    view = memoryview(body)
    for end in ends:
        hashed.update(view[done:end])
        done = end
        yield hashed.digest(DIGEST_BYTES)


CountInvalid = Callable[[bytes, Sequence[int] | None, int], int]
"""How many records of a block, with these ends and at most of this size, are invalid: as it will be sealed."""


def first_invalid(part: Part, max_record_bytes: int, count_invalid: CountInvalid) -> int | None:
    """Which record of a part, counted from 0, is not a JSON object or is too long; None if all are fine.

    Lines count even if they are blank.
    """
    if not count_invalid(part.data, part.ends, max_record_bytes):
        return None
    records = enumerate(_records(part))
    return next(n for n, each in records if count_invalid(each, [len(each)], max_record_bytes))


def record_count(part: Part) -> int:
    """How many records a part has; blank lines count."""
    return len(part.ends) if part.ends is not None else part.data.count(b"\n")


def _records(part: Part) -> Iterator[bytes]:
    if part.ends is None:
        yield from part.data.removesuffix(b"\n").split(b"\n")
        return
    for start, end in zip(chain((0,), part.ends), part.ends, strict=False):
        yield part.data[start:end]
