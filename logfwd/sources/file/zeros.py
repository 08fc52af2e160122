"""Zeros in a file that are not data: holes, and room that was reserved before anything was written to it.

A writer without O_APPEND that goes on after a truncate leaves a hole; preallocated and memory-mapped files end in zeros
that become lines later. So zeros directly after a line, or at the start of a file, are skipped once another byte
follows, and zeros up to the end of a file are not read. Zeros within a line are part of it.
"""

from __future__ import annotations

import errno
import os

import structlog

from logfwd.sources.file.plain import Plain, pread

ZERO = b"\0"
STEP_BYTES = 1024 * 1024

WIDE_BYTES = 16
"""So many bytes at the start of a file show whether it is text of two bytes a character."""

log = structlog.get_logger("logfwd.sources.file")


class Zeros:
    """The zeros that were skipped in one file."""

    def __init__(self) -> None:
        self._skipped_bytes = self._logged_bytes = 0

    def skip(self, path: str, byte_count: int, first: bytes) -> None:
        """Count skipped zeros; log the sum at first, and then whenever it has doubled. `first`: the file's first bytes.

        Zeros between lines are also what is left of text in UTF-16 that is read as if it were UTF-8.
        """
        if not self._skipped_bytes and (encoding := wide_encoding(first)):
            remedy = f'source.format = "text" with source.encoding = "{encoding}"'
            log.warning("file looks like UTF-16", path=path, encoding=encoding, remedy=remedy)
        self._skipped_bytes += byte_count
        if self._skipped_bytes >= 2 * self._logged_bytes:
            self._logged_bytes = self._skipped_bytes
            log.warning("zeros skipped", path=path, bytes=self._skipped_bytes)


def wide_encoding(first: bytes) -> str:
    """The encoding of text that begins so, if every second byte is zero and no other; "" for anything else."""
    even, odd = first[::2], first[1::2]
    for name, zeros, characters in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if len(first) >= WIDE_BYTES and not zeros.strip(ZERO) and ZERO not in characters:
            return name
    return ""


def end_of_zeros(file: int | Plain, offset: int) -> int | None:
    """The offset of the first byte that is not zero, from `offset` on; None if only zeros follow.

    Holes are not read where the file system can tell where data begins.
    """
    while (data := pread(file, STEP_BYTES, offset)) and not (rest := data.lstrip(ZERO)):
        offset += len(data)
        if isinstance(file, int):
            offset = _next_data(file, offset)
    return offset + len(data) - len(rest) if data else None


def data_parts(fd: int, end: int) -> list[range]:
    """The parts before `end` that are not holes; all of it where the file system does not know."""
    parts, at, status = list[range](), 0, os.fstat(fd)
    if status.st_blocks * 512 >= status.st_size:  # no hole; some file systems look at every page to say so
        return [range(end)]
    try:
        while at < end:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            parts.append(range(min(start, end), min(at, end)))
    except OSError as error:
        if error.errno != errno.ENXIO:
            return [range(end)]
    return parts


def _next_data(fd: int, offset: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data follows
            return os.fstat(fd).st_size
        return offset  # not every file system knows
