"""What the spool stores of a place: a mark, whose detail holds what the file is recognised by, and where it was."""

from __future__ import annotations

import os

import msgspec

from logfwd.sources.file.identity import Archive, Place, Windows
from logfwd.sources.position import Mark
from streams.decoding import MALFORMED


class Detail(msgspec.Struct, frozen=True, array_like=True):
    """What a mark holds in addition to offset and tail. Paths are bytes because they need not be UTF-8."""

    path: bytes
    family: bytes
    inode: int
    head_bytes: int
    head_hash: bytes
    written_ms: int
    handle: bytes = b""  # marks of earlier versions have none, and no state
    state: bytes = b""
    windows: Windows = ()
    head_start: int = 0
    device: int = 0
    boot: bytes = b""
    away_seconds: int = 0
    archive: Archive | None = None
    settled: bool = False  # nothing more is expected of the file


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Detail).decode


def mark_of(
    place: Place, path: str, family: str, written_ms: int, away_seconds: int = 0, *, settled: bool = False
) -> Mark:
    """The mark of a place in the file at this path, which was last written to at this time."""
    detail = Detail(
        os.fsencode(path),
        os.fsencode(family),
        place.inode,
        place.head_bytes,
        place.head_hash,
        written_ms,
        place.handle,
        place.state,
        place.windows,
        place.head_start,
        place.device,
        place.boot,
        away_seconds,
        place.archive,
        settled,
    )
    return Mark(place.offset, place.tail_bytes, place.tail_hash, _encode(detail))


def has_state(mark: Mark) -> bool:
    """True if a mark holds something that the reader of the lines has to know."""
    known = read_mark(mark)
    return known is not None and bool(known[0].state)


def read_mark(mark: Mark) -> tuple[Place, Detail] | None:
    """A stored mark's place and detail; None if this source did not write it."""
    try:
        detail = _decode(mark.detail)
    except MALFORMED:
        return None
    head = detail.head_bytes, detail.head_hash
    tail = mark.tail_bytes, mark.tail_hash
    place = Place(
        detail.inode,
        mark.offset,
        *tail,
        *head,
        detail.handle,
        detail.state,
        windows=detail.windows,
        windows_for=mark.offset if detail.windows else 0,
        head_start=detail.head_start,
        device=detail.device,
        boot=detail.boot,
        archive=detail.archive,
    )
    return place, detail
