"""The plain content of gzip and zstd files, read as if by pread(2), in memory that does not depend on their size.

Content is decompressed from the start on; reading backwards begins again, which its readers avoid. The whole file is
decompressed once before anything of it is used (archives.py), so that what is cut off, damaged or a bomb costs time in
bounded steps and yields no record.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from functools import partial

import zstandard

from logfwd.sources import zstdframes
from logfwd.sources.zstdframes import STEP_BYTES
from streams.config.units import KIB, MIB

MOST_RATIO, RATIO_FREE_BYTES = 1000, 64 * MIB
"""A file that becomes larger than both a thousandfold and this is no log."""

READABLE = ("gzip", "zstd")
_SIGNATURES = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
)
SIGNATURE_BYTES = 64
_BZIP2_BLOCK = b"1AY&SY"
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100)) | frozenset(b"\t\n\r\x1b")


class Damaged(Exception):
    """A compressed file that cannot be decompressed to its end; the message says why."""


def compression_of(first: bytes) -> str:
    """How a file that begins with these bytes (SIGNATURE_BYTES, if it has as many) is compressed; "" if it is not.

    Text may begin with a signature by chance, but no text has control characters right behind it.
    """
    for signature, name in _SIGNATURES:
        if first.startswith(signature):
            if name == "bzip2":
                return name if first[4:10] == _BZIP2_BLOCK[: len(first) - 4] else ""
            rest = first[len(signature) : SIGNATURE_BYTES]
            return "" if rest and _TEXT.issuperset(rest) else name
    return ""


class Plain:
    """The plain content of one open gzip or zstd file."""

    def __init__(self, fd: int) -> None:
        self._fd, self._start, self._kept = fd, 0, b""
        self._pieces = plain_pieces(fd)

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset` on, fewer only at the end. Raises Damaged, OSError."""
        if offset < self._start:
            self._start, self._kept, self._pieces = 0, b"", plain_pieces(self._fd)
        parts, end = [self._kept], self._start + len(self._kept)
        while end < offset + size and (piece := next(self._pieces, None)) is not None:
            if end <= offset:  # nothing before this piece is wanted
                parts, self._start = [], end
            parts.append(piece)
            end += len(piece)
        kept = b"".join(parts)
        begin = min(max(offset - self._start, 0), len(kept))
        self._kept, self._start = kept[begin:], self._start + begin
        return self._kept[:size] if self._start == offset else b""


def pread(file: int | Plain, size: int, offset: int) -> bytes:
    """Bytes of an open file, or of the plain content of a compressed one."""
    return os.pread(file, size, offset) if isinstance(file, int) else file.pread(size, offset)


def plain_pieces(fd: int) -> Iterator[bytes]:
    """The plain content of an open file, in pieces of at most STEP_BYTES. Raises Damaged, OSError."""
    name, size, total = compression_of(os.pread(fd, SIGNATURE_BYTES, 0)), os.fstat(fd).st_size, 0
    try:
        for piece in _gzip(fd) if name == "gzip" else _zstd(fd):
            total += len(piece)
            if total > max(RATIO_FREE_BYTES, MOST_RATIO * size):
                raise Damaged(f"it decompresses to more than {MOST_RATIO} times its size")
            yield piece
    except (zlib.error, zstandard.ZstdError) as error:
        raise Damaged(f"not valid {name}: {error}") from error


class _Raw:
    """Reads an open file forward, and then some bytes more."""

    def __init__(self, fd: int, more: bytes = b"") -> None:
        self._fd, self._offset, self._more = fd, 0, more

    def read(self, size: int = 64 * KIB) -> bytes:
        if data := os.pread(self._fd, size, self._offset):
            self._offset += len(data)
            return data
        data, self._more = self._more[:size], self._more[size:]
        return data


def _gzip(fd: int) -> Iterator[bytes]:
    """Members of gzip, one after the other (RFC 1952 §2.2); zeros behind the last one are padding, as for gzip(1)."""
    raw, data = _Raw(fd), b""
    while True:
        if not (data := data.lstrip(b"\0")):
            if not (data := raw.read()):
                return
            continue
        member = zlib.decompressobj(31)
        while not member.eof:
            if not data and not (data := raw.read()):
                raise Damaged("it ends too early")
            if piece := member.decompress(data, STEP_BYTES):
                yield piece
            data = member.unconsumed_tail
        data = member.unused_data
        yield b""  # so that a file of empty members is a matter of many steps, too


def _zstd(fd: int) -> Iterator[bytes]:
    try:
        yield from zstdframes.plain_pieces(partial(_Raw, fd))
    except EOFError:
        raise Damaged("it ends too early") from None
