"""One followed file: reads whole lines from its position on, and notices if it is no longer the same file.

Each read fetches the bytes before the position together with those after it, in one call, and compares them. So a file
that was truncated and has grown again is never taken for its own continuation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from logfwd.sources.file.identity import COMPRESSED, FileId, Place, detail_of
from logfwd.sources.position import TAIL_BYTES, Block


class Replaced(Exception):
    """The bytes before the position have changed."""


class Deleted(Exception):
    """The file was deleted while it was closed; its inode belongs to another file now."""


class Compressed(Exception):
    """The file begins like a compressed one."""


@dataclass(eq=False, slots=True)
class Tail:
    """A file that is followed; `fd` is −1 while it is closed."""

    key: str
    path: str
    family: str
    id: FileId
    place: Place
    fd: int = -1
    watch: int = -1
    size: int = 0
    mtime_ns: int = -1
    ctime_ns: int = -1
    size_closed: int = 0  # its size when it was closed; a later size may be that of another file
    active_at: float = 0.0
    rotated_at: float | None = None  # when its path began to lead elsewhere, or it got another path
    gone: bool = False  # no configured path leads to it any more
    announce: bool = False  # hand over its position although nothing was read
    ready: bool = False  # in the queue of files to read
    ended: bool = False  # no longer followed
    after: Tail | None = None  # its predecessor in the same family, read to its end first

    def read(self, block_bytes: int, max_record_bytes: int, wall_ms: int, *, final: bool) -> Block | None:
        """The next whole lines; None at the end. `final` turns an unfinished last line into a record."""
        place = self.place
        if self.announce:
            self.announce = False
            return self._block(b"", place.offset, wall_ms)
        want = max(block_bytes, max_record_bytes + 1)
        data = os.pread(self.fd, place.tail_bytes + want, place.offset - place.tail_bytes)
        begin = place.tail_bytes
        if not place.tail_matches(data) or (len(data) == begin and os.fstat(self.fd).st_size < place.offset):
            raise Replaced
        if not place.offset and data.startswith(COMPRESSED):
            raise Compressed
        if stop := data.rfind(b"\n", begin) + 1:
            lines, added = data[begin:stop], 0
        elif len(data) - begin >= max_record_bytes:
            lines, added = data[begin : begin + max_record_bytes] + b"\n", 1
        elif final and len(data) > begin:
            lines, added = data[begin:] + b"\n", 1
        else:
            return None
        end = place.offset + len(lines) - added
        self.place = place.after(lines[max(end - place.offset - TAIL_BYTES, 0) : end - place.offset], end, self.fd)
        return self._block(lines, place.offset, wall_ms)

    def _block(self, data: bytes, start: int, wall_ms: int) -> Block:
        written_ms = os.fstat(self.fd).st_mtime_ns // 1_000_000
        detail = detail_of(self.place, self.path, self.family, written_ms)
        return Block(data=data, read_at_ms=wall_ms, key=self.key, start=start, end=self.place.offset, detail=detail)
