"""One followed file: reads whole lines from its position on, and notices if it is no longer the same file.

Each read fetches the bytes before the position together with those after it, in one call, and compares them. So a file
that was truncated and has grown again is never taken for its own continuation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from msgspec import structs

from logfwd.sources.file.identity import COMPRESSED, FileId, Place, detail_of
from logfwd.sources.formats.encodings import (
    FIRST_BYTES,
    UTF_8,
    Encoding,
    encoding_of,
    end_of_lines,
    whole_characters,
)
from logfwd.sources.formats.joined import JoinedLines
from logfwd.sources.lines import Lines
from logfwd.sources.position import FILE, TAIL_BYTES, Block, Mark, Position


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
    encoding_name: str = "utf-8"
    fd: int = -1
    watch: int = -1
    size: int = 0
    mtime_ns: int = -1
    ctime_ns: int = -1
    written_ms: int = 0
    size_closed: int = 0  # its size when it was closed; a later size may be that of another file
    active_at: float = 0.0
    rotated_at: float | None = None  # when its path began to lead elsewhere, or it got another path
    gone: bool = False  # no configured path leads to it any more
    announce: bool = False  # hand over its position although nothing was read
    ready: bool = False  # in the queue of files to read
    ended: bool = False  # no longer followed
    after: Tail | None = None  # its predecessor in the same family, read to its end first
    predecessor: Tail | None = None  # records that are open at its end go on here
    lines: Lines | None = None  # makes records of the lines; without it, each line is one
    encoding: Encoding | None = None  # None until the first bytes are there

    def read(self, block_bytes: int, max_record_bytes: int, wall_ms: int, *, final: bool) -> Block | None:
        """The next whole lines; None at the end. `final` turns an unfinished last line into a record."""
        place = self.place
        if self.announce:
            self.announce = False
            return Block(b"", wall_ms, positions={self.key: self.position()})
        most = max(block_bytes, max_record_bytes + 1)
        data = self._fetch(block_bytes if self.lines is not None else most)
        begin = place.tail_bytes
        if not place.tail_matches(data) or (len(data) == begin and os.fstat(self.fd).st_size < place.offset):
            raise Replaced
        encoding = UTF_8
        if not place.offset:
            if data.startswith(COMPRESSED):
                raise Compressed
            encoding = self._encoding_of(data)
            begin += len(encoding.bom) if data.startswith(encoding.bom) else 0
        elif self.lines is not None:
            encoding = self.encoding or self._encoding_of(os.pread(self.fd, FIRST_BYTES, 0))
        stop = end_of_lines(data, begin, encoding)
        if not stop and self.lines is not None and len(data) < place.tail_bytes + most:
            data = self._fetch(most)
            stop = end_of_lines(data, begin, encoding)
        added, is_cut = b"", False
        if not stop and len(data) - begin >= max_record_bytes:
            added, is_cut = encoding.newline, True
            stop = begin + max_record_bytes
            if self.lines is not None:
                stop = begin + whole_characters(data[begin:stop], encoding)
        elif not stop and final and len(data) > place.tail_bytes:
            added, stop = encoding.newline, len(data)
        elif not stop:
            return None
        return self._found(data[begin:stop], begin - place.tail_bytes, added, encoding, wall_ms, is_cut=is_cut)

    def _fetch(self, size: int) -> bytes:
        """The bytes before the position, and up to `size` after it."""
        return os.pread(self.fd, self.place.tail_bytes + size, self.place.offset - self.place.tail_bytes)

    def _encoding_of(self, first: bytes) -> Encoding:
        """The encoding, by the first bytes of the file; remembered when they are all there."""
        encoding = encoding_of(self.encoding_name, first)
        if len(first) >= FIRST_BYTES:
            self.encoding = encoding
        return encoding

    def _found(
        self, own: bytes, skipped: int, added: bytes, encoding: Encoding, wall_ms: int, *, is_cut: bool
    ) -> Block:
        """A block of these bytes of the file, which begin `skipped` bytes after the position."""
        start = self.place.offset + skipped
        self.place = self.place.after(own[-TAIL_BYTES:], start + len(own), self.fd)
        if self.lines is None:
            return self._block(own + added if own and added else own, start, wall_ms)
        records = self.lines.feed(own, start, encoding, cut=is_cut)
        self.place = structs.replace(self.place, state=self.lines.state())
        return self._block(records, start, wall_ms)

    def end_records(self, wall_ms: int, *, everything: bool) -> Block:
        """The open records that may be whole, or all of them, as a block; no line follows for now."""
        assert self.lines is not None
        records = self.lines.end(everything=everything)
        self.place = structs.replace(self.place, state=self.lines.state())
        return self._block(records, self.place.offset, wall_ms)

    def inherit(self, other: Tail, wall_ms: int) -> Block:
        """Go on with the open records of the file before this one; the block holds the positions of both."""
        assert isinstance(self.lines, JoinedLines)
        assert isinstance(other.lines, JoinedLines)
        self.lines.inherit(other.lines.give())
        self.place = structs.replace(self.place, state=self.lines.state())
        other.place = structs.replace(other.place, state=b"")
        block = self._block(b"", self.place.offset, wall_ms)
        return structs.replace(block, positions={**(block.positions or {}), other.key: other.position()})

    def position(self) -> Position:
        """The present position, as the spool stores it."""
        return Position(FILE, self._mark().encode())

    def _mark(self) -> Mark:
        if self.fd >= 0:
            self.written_ms = os.fstat(self.fd).st_mtime_ns // 1_000_000
        detail = detail_of(self.place, self.path, self.family, self.written_ms)
        return Mark(self.place.offset, self.place.tail_bytes, self.place.tail_hash, detail)

    def _block(self, data: bytes, start: int, wall_ms: int) -> Block:
        end, mark = self.place.offset, self._mark()
        if self.lines is None:
            return Block(data=data, read_at_ms=wall_ms, key=self.key, start=start, end=end, detail=mark.detail)
        positions = {self.key: Position(FILE, mark.encode())}
        is_checked = self.lines.is_checked
        return Block(data, wall_ms, start=start, end=end, positions=positions, is_checked=is_checked)
