"""That a scan was made, and for which patterns: stored like a position, under a key of its own."""

from __future__ import annotations

import msgspec

from logfwd.sources.position import FILE, Mark, Position
from streams.decoding import MALFORMED

SCAN_KEY = "scan"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode


def scan_of(patterns: tuple[str, ...]) -> Position:
    """What is stored of a scan for these patterns."""
    return Position(FILE, Mark(0, detail=_encode(patterns)).encode())


def patterns_of(mark: Mark) -> tuple[str, ...]:
    """The patterns of a stored scan; none if it cannot be decoded."""
    try:
        return _decode(mark.detail)
    except MALFORMED:
        return ()
