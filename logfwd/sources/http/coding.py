"""Content-Encoding: bodies decompressed step by step, so that a bomb never takes more memory than one step.

Nothing but Refused is raised, whatever the bytes are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import zstandard

from logfwd.sources import zstdframes
from logfwd.sources.http.answers import malformed, not_supported, too_large
from logfwd.sources.zstdframes import STEP_BYTES
from streams.config.units import MIB, show_size

MOST_MEMBERS = 100
"""gzip members of one body: each one copies the bytes after it."""
MOST_RATIO = 1000
RATIO_FREE_BYTES = MIB
"""A body that decompresses to no more than this may have any ratio."""

_GZIP, _ZLIB, _DEFLATE = 31, 15, -15  # zlib's wbits


def check(coding: str) -> str:
    """The coding in lower case, "" for none; refuses one that is not known."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return ""
    if name in ("gzip", "x-gzip", "deflate", "zstd"):
        return name.removeprefix("x-")
    raise not_supported(
        f"Content-Encoding {coding!r} is not supported; use gzip, deflate or zstd, and only one of them"
    )


def decompressed(data: bytes, coding: str, max_bytes: int) -> Iterator[bytes]:
    """The plain bytes of a whole body, in pieces of at most STEP_BYTES; refuses what is damaged or too large."""
    if not data:
        raise malformed(f"an empty body is not valid {coding}")
    pieces = _zstd(data) if coding == "zstd" else _zlib(data, coding)
    total = 0
    try:
        for piece in pieces:
            total += len(piece)
            if total > max_bytes:
                raise too_large(f"the decompressed body is larger than max_body_bytes, {show_size(max_bytes)}")
            if total > max(RATIO_FREE_BYTES, MOST_RATIO * len(data)):
                raise too_large(f"the body decompresses to more than {MOST_RATIO} times its size")
            yield piece
    except (zlib.error, zstandard.ZstdError) as error:
        raise malformed(f"the body is not valid {coding}: {error}") from error


def _zlib(data: bytes, coding: str) -> Iterator[bytes]:
    wbits = _GZIP if coding == "gzip" else _ZLIB if _has_zlib_header(data) else _DEFLATE
    for _ in range(MOST_MEMBERS):
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            piece = stream.decompress(data, STEP_BYTES)
            if not piece and not stream.eof:
                raise malformed(f"the {coding} body ends too early")
            data = stream.unconsumed_tail
            yield piece
        data = stream.unused_data
        if not data:
            return
        if coding != "gzip":
            raise malformed(f"bytes follow the end of the {coding} body")
    raise malformed(f"the body has more than {MOST_MEMBERS} gzip members")


def _has_zlib_header(data: bytes) -> bool:
    """Some clients send raw deflate without the header that RFC 9110 §8.4.1.2 asks for."""
    return len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _zstd(data: bytes) -> Iterator[bytes]:
    try:
        yield from zstdframes.plain_pieces(lambda last: data + last)
    except EOFError:
        raise malformed("the zstd body ends too early") from None
