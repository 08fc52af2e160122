"""What a position knows of its file: inode and handle, and hashes of the file's head, of the bytes before the position,
and of up to four windows in between. What follows from them is decided in which.py.

The device is compared within one boot only, because its number can change on reboot. The head (the first 1 KiB at most,
behind `header_bytes`) is extended while the file is shorter than that, and never reaches beyond what was handed over.
So a file that only grew still fits, and one that was replaced, truncated or given a used inode does not.
"""

from __future__ import annotations

import os

import msgspec

from logfwd.sources.file.handle import BOOT, handle_of, id_of, same_handle
from logfwd.sources.file.plain import Plain, pread
from logfwd.sources.file.which import LEAST_BYTES, Evidence
from logfwd.sources.file.zeros import ZERO, data_parts
from logfwd.sources.formats import encodings
from logfwd.sources.longlines import MAX_LINE_BYTES
from logfwd.sources.position import TAIL_BYTES, tail_hash

_BACK_BYTES = 64 * 1024  # what is read at a time to find the end of the last line

FileId = tuple[int, int]
"""Device and inode. Identifies a file while it is open or listed, never across a restart."""

HEAD_BYTES = 1024

WINDOW_BYTES, WINDOWS = 256, 4
WINDOWS_FROM = 4096
"""A file with fewer bytes of data before the position has no windows: an edit cannot be told from a rewrite there."""

Windows = tuple[tuple[int, bytes], ...]
"""Offset and hash of each window."""


class Archive(msgspec.Struct, frozen=True, array_like=True):
    """What a compressed file is recognised by: its size and a hash of its first and last 1 KiB; and its plain size.

    The rest of a place in it, offset and hashes, is that of its plain content.
    """

    raw_bytes: int
    raw_hash: bytes
    plain_bytes: int

    def is_of(self, fd: int) -> bool:
        """True if this is the open file."""
        return self.raw_bytes == os.fstat(fd).st_size and self.raw_hash == archive_of(fd).raw_hash


def archive_of(fd: int, plain_bytes: int = 0) -> Archive:
    """An open compressed file, as a position knows it."""
    size = os.fstat(fd).st_size
    ends = os.pread(fd, HEAD_BYTES, 0) + os.pread(fd, HEAD_BYTES, max(size - HEAD_BYTES, 0))
    return Archive(size, tail_hash(ends), plain_bytes)


class Place(msgspec.Struct, frozen=True):
    """A position in a file, with everything the file is recognised by."""

    inode: int
    offset: int = 0
    tail_bytes: int = 0
    tail_hash: bytes = b""
    head_bytes: int = 0
    head_hash: bytes = b""
    handle: bytes = b""
    state: bytes = b""  # what the reader of the lines has to know here (formats/)
    windows: Windows = ()
    windows_for: int = 0  # the offset for which the windows were chosen
    head_start: int = 0  # the head begins here (`header_bytes`)
    device: int = 0
    boot: bytes = b""
    archive: Archive | None = None  # if the file is a compressed one

    @property
    def head(self) -> Head:
        """What files that begin alike have in common."""
        return self.head_start, self.head_bytes, self.head_hash

    def is_of(self, fd: int) -> bool | None:
        """Whether an open file with this inode is the position's file; None where the file system has no handles."""
        return same_handle(self.handle, handle_of(fd))

    def in_file(self, fd: int, archive: Archive | None = None) -> Place:
        """The same place in the open file: in a copy, or in the file itself if the stored mark has no handle."""
        device, inode = id_of(os.fstat(fd))
        file = {"inode": inode, "handle": handle_of(fd), "device": device, "boot": BOOT}
        return msgspec.structs.replace(self, **file, archive=archive)

    def evidence(self, fd: int) -> Evidence:
        """What an open file shows of this position."""
        (device, inode), size = id_of(status := os.fstat(fd)), status.st_size
        head_fits, tail_fits = self.head_fits(fd), self.tail_fits(fd)
        return Evidence(
            same_inode=inode == self.inode,
            same_handle=self.is_of(fd),
            same_device=device == self.device if self.boot and self.boot == BOOT else None,
            long_enough=size >= self.offset,
            head_fits=head_fits,
            tail_fits=tail_fits,
            window_fits=not tail_fits and any(_window(fd, at) == hash_ for at, hash_ in self.windows),
            compared_bytes=max(self.head_bytes, self.tail_bytes),
            is_whole=size == self.offset,
            at_start=not self.offset,
        )

    def fits(self, fd: int) -> bool:
        """True if the open file still has the content that it had around this position."""
        if self.archive is not None:
            return self.archive.is_of(fd)
        return self.head_fits(fd) and self.tail_fits(fd) and os.fstat(fd).st_size >= self.offset

    def head_fits(self, fd: int) -> bool:
        return _matches(os.pread(fd, self.head_bytes, self.head_start), self.head_bytes, self.head_hash)

    def tail_fits(self, fd: int) -> bool:
        tail = os.pread(fd, self.tail_bytes, self.offset - self.tail_bytes)
        return _matches(tail, self.tail_bytes, self.tail_hash)

    def begins_with(self, head: bytes) -> bool:
        """True if these first bytes (behind `header_bytes`) begin with the head of this position, not an empty one."""
        return bool(self.head_bytes) and _matches(head[: self.head_bytes], self.head_bytes, self.head_hash)

    def tail_matches(self, data: bytes) -> bool:
        """True if bytes that were read from the start of the tail begin with the tail."""
        return _matches(data[: self.tail_bytes], self.tail_bytes, self.tail_hash)

    def after(self, tail: bytes, offset: int, file: int | Plain) -> Place:
        """The place at `offset`, preceded by `tail`; the head is extended while it is short."""
        head_bytes, head_hash = self.head_bytes, self.head_hash
        if head_bytes < HEAD_BYTES and offset > self.head_start + head_bytes:
            head = pread(file, min(offset - self.head_start, HEAD_BYTES), self.head_start)
            head_bytes, head_hash = len(head), tail_hash(head)
        windows, windows_for = self.windows, self.windows_for
        is_due = offset >= WINDOWS_FROM and offset > windows_for + windows_for // 4
        if is_due and isinstance(file, int) and (found := _windows(file, offset)):
            windows, windows_for = found, offset
        tail = tail[-TAIL_BYTES:]
        return Place(
            self.inode,
            offset,
            len(tail),
            tail_hash(tail) if tail else b"",
            head_bytes,
            head_hash,
            self.handle,
            self.state,
            windows,
            windows_for,
            self.head_start,
            self.device,
            self.boot,
            self.archive,
        )

    def has_in_common(self, fd: int) -> bool:
        """True if an open file has a whole head in common with this place's, and a window or the tail."""
        if self.head_bytes < HEAD_BYTES or not self.head_fits(fd):
            return False
        size = os.fstat(fd).st_size
        return any(self.windows_in(fd, size)) or (size >= self.offset and self.tail_fits(fd))

    def windows_in(self, fd: int, size: int) -> list[bool]:
        """Of each window within the first `size` bytes of a file, whether it fits."""
        return [_window(fd, at) == hash_ for at, hash_ in self.windows if at + WINDOW_BYTES <= size]

    def kept_bytes(self, fd: int, *, same: bool) -> int:
        """How many bytes of what was read may be at the start of a file that is read from there.

        `same`: it is the position's own file. Then, under 4 KiB, an edit cannot be told from a rewrite. One that was
        shortened and has grown again, or was restored from an older copy, is alike up to the first window that does not
        fit.
        """
        size = os.fstat(fd).st_size
        windows = self.windows_in(fd, size)
        has_head = self.head_bytes >= LEAST_BYTES and self.head_fits(fd)
        if size < self.offset and has_head and all(windows):
            return size
        if size >= self.offset:
            if (same and not windows) or (self.tail_bytes >= LEAST_BYTES and self.tail_fits(fd)):
                return self.offset
            if (same or has_head) and any(windows):
                return self.offset
        if not has_head or not (same or any(windows)):
            return 0
        return min(self.windows[windows.index(False)][0] + WINDOW_BYTES, size)

    def edited(self, fd: int) -> Place:
        """The same place in its file, whose earlier bytes have changed."""
        start = max(self.offset - TAIL_BYTES, 0)
        fresh = msgspec.structs.replace(self, windows_for=0)
        return fresh.after(os.pread(fd, self.offset - start, start), self.offset, fd)


Head = tuple[int, int, bytes]
"""Start, length and hash of a head."""


def _windows(fd: int, offset: int) -> Windows:
    """Windows at even distances in the data before the position; zeros, and thus holes, prove nothing."""
    parts = data_parts(fd, offset)
    if (total := sum(map(len, parts))) < WINDOWS_FROM:
        return ()
    starts = (_nth(parts, total * part // (WINDOWS + 1)) for part in range(1, WINDOWS + 1))
    return tuple((start, _window(fd, start)) for start in starts if os.pread(fd, WINDOW_BYTES, start).strip(b"\0"))


def _nth(parts: list[range], number: int) -> int:
    """The number-th of the offsets in these parts."""
    for part in parts:
        if number < len(part):
            break
        number -= len(part)
    return part.start + number


def _window(fd: int, start: int) -> bytes:
    return tail_hash(os.pread(fd, WINDOW_BYTES, start))


def _matches(data: bytes, length: int, expected: bytes) -> bool:
    return len(data) == length and (not length or tail_hash(data) == expected)


class Moved(Exception):
    """The path now leads to a different file, or to none: scan again."""


def open_same(path: str, id_: FileId) -> int:
    """Open a file that was listed under this path; never blocks, not even on a FIFO. Raises Moved, OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Moved from None
    if id_of(os.fstat(fd)) != id_:
        os.close(fd)
        raise Moved
    return fd


def place_at(fd: int, offset: int, head_start: int = 0) -> Place:
    """The place at an offset of an open file, computed from its present content."""
    start = max(offset - TAIL_BYTES, 0)
    place = Place(0, head_start=head_start).in_file(fd)
    return place.after(os.pread(fd, offset - start, start), offset, fd)


def end_of_lines(fd: int, encoding: str, head_start: int = 0, size: int | None = None) -> Place:
    """The place after the last whole line of an open file (of its first `size` bytes), whatever zeros follow it; at the
    end if what follows is longer than a line may be."""
    known = encodings.encoding_of(encoding, os.pread(fd, encodings.FIRST_BYTES, 0))
    size = (os.fstat(fd).st_size if size is None else size) // known.unit * known.unit
    data_ends = end = size
    while end and data_ends - end < MAX_LINE_BYTES:
        start = max(end - _BACK_BYTES, 0)
        data = os.pread(fd, end - start, start)
        if stop := encodings.end_of_lines(data, 0, known):
            return place_at(fd, start + stop, head_start)
        if data_ends == end and known.unit == 1:
            data_ends = start + len(data.rstrip(ZERO))
        end = start
    return place_at(fd, data_ends if end else 0, head_start)


def begins_alike(fd: int, other: int) -> bool:
    """True if the first and last 1 KiB of a file equal the same parts of another, as a copy of its beginning would."""
    size = os.fstat(fd).st_size
    return all(
        os.pread(fd, HEAD_BYTES, at) == os.pread(other, min(HEAD_BYTES, size - at), at)
        for at in (0, max(size - HEAD_BYTES, 0))
    )


def head_of(fd: int, head_start: int) -> Head:
    """The head by which a position may know this file: its first 1 KiB, or all of a shorter one."""
    head = os.pread(fd, HEAD_BYTES, head_start)
    return head_start, len(head), tail_hash(head)
