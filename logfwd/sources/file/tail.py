"""One followed file: reads whole lines from its position on, and notices if it is no longer the same file.

Each read fetches the bytes before the position together with those after it, in one call, and compares them. So a file
that was truncated and has grown again is never taken for its own continuation.

A line that is longer than a block is read when its end is there, and as one block: wherever a forwarder is killed, all
of its records are stored, or none.
"""

from __future__ import annotations

import errno
import os

import msgspec
from msgspec import structs

from logfwd.sources.file.identity import FileId, Place
from logfwd.sources.file.marks import mark_of
from logfwd.sources.file.plain import Plain, compression_of, pread
from logfwd.sources.file.zeros import STEP_BYTES, WIDE_BYTES, ZERO, Zeros, end_of_zeros
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
from logfwd.sources.longlines import MAX_LINE_BYTES, Cuts
from logfwd.sources.position import FILE, TAIL_BYTES, Block, Mark, Position, tail_hash

NO_SIZE = "it has no size, as files of /proc: what it says changes with every read"


class Replaced(Exception):
    """The bytes before the position have changed."""


class Deleted(Exception):
    """The file was deleted while it was closed; its inode belongs to another file now."""


class Compressed(Exception):
    """The file begins like a compressed one."""


class Filled(Exception):
    """It was empty when it was found. Since then it may have been written, copied and emptied more than once."""


class BegunAnew(Exception):
    """Nothing was read of the file yet, and its content is another one than when it was found."""


class Tail(msgspec.Struct, eq=False):
    """A file that is followed; `fd` is −1 while it is closed."""

    key: str
    path: str
    family: str
    id: FileId
    place: Place
    encoding_name: str = "utf-8"
    fd: int = -1
    plain: Plain | None = None  # the content of an open compressed file
    watch: int = -1
    size: int = 0
    mtime_ns: int = -1
    ctime_ns: int = -1
    written_ms: int = 0
    size_closed: int = 0  # its size when it was closed; a later size may be that of another file
    active_at: float = 0.0
    rotated_at: float | None = None  # when its path began to lead elsewhere, or it got another path
    gone: bool = False  # no configured path leads to it any more
    listed_at: str = ""  # where the last scan saw it, under a configured name or a rotated one
    announce: bool = False  # hand over its position although nothing was read
    ready: bool = False  # in the queue of files to read
    deletion_listed: bool = False  # it was deleted before the last listing of its directory
    ended: bool = False  # no longer followed
    settled: bool = False  # nobody will go on writing to it, as far as can be known
    after: Tail | None = None  # its predecessor in the same family, read to its end first
    predecessor: Tail | None = None  # records that are open at its end go on here
    lines: Lines | None = None  # makes records of the lines; without it, each line is one
    encoding: Encoding | None = None  # None until the first bytes are there
    zeros: Zeros = msgspec.field(default_factory=Zeros)
    zeros_at_end: int = 0  # bytes at its end that are not data yet, as of the last read
    cuts: Cuts = msgspec.field(default_factory=Cuts)
    searched: int = 0  # up to here there is no end of the line at the position
    first_at: int = 0  # where the data began of a file that is read from its start, when it was found
    first: bytes = b""  # and how
    found_bytes: int = 0  # and its size
    left_at: int = -1  # the scan since which it is not read, for the next one has to look at it
    replaced_at: int = -1  # the scan since which it is not followed, for its content was replaced

    @property
    def unread_bytes(self) -> int:
        """Bytes after the position, as of the last look."""
        return self.size - self.zeros_at_end - self.place.offset

    @property
    def is_unread(self) -> bool:
        """True for a file, not a compressed one, of which nothing was read yet."""
        return not self.place.offset and self.place.archive is None

    @property
    def is_deleted(self) -> bool:
        """True for an open file that has no name any more."""
        return self.fd >= 0 and not os.fstat(self.fd).st_nlink

    @property
    def awaits_heir(self) -> bool:
        """True for a rotated file with a record that may go on in the next file."""
        return self.gone and self.lines is not None and self.lines.has_open

    @property
    def content(self) -> int | Plain:
        """What its lines are read from."""
        return self.fd if self.plain is None else self.plain

    @property
    def content_bytes(self) -> int:
        """How large that is at the moment."""
        archive = self.place.archive
        return os.fstat(self.fd).st_size if archive is None else archive.plain_bytes

    @property
    def is_filled(self) -> bool:
        """True if its zeros at the end have become data: writes to mapped memory need not change its time."""
        at = self.size - self.zeros_at_end
        return bool(self.zeros_at_end) and self.fd >= 0 and self.plain is None and self._fetch(at, 1) != ZERO

    def read(self, block_bytes: int, wall_ms: int, *, final: bool) -> Block | None:
        """The next whole lines; None at the end. `final` turns an unfinished last line into a record."""
        place, self.zeros_at_end = self.place, 0
        if self.announce:
            self.announce = False
            return Block(b"", wall_ms, positions={self.key: self.position()})
        origin, begin = place.offset - place.tail_bytes, place.tail_bytes
        data = self._fetch(origin, begin + block_bytes)
        if not place.tail_matches(data) or (len(data) == begin and self.content_bytes < place.offset):
            raise Replaced
        if not place.offset:
            self._check_beginning()
        encoding = self._encoding(data)
        if not place.offset and data.startswith(encoding.bom):
            begin += len(encoding.bom)
        if data[begin : begin + 1] == ZERO and encoding.unit == 1:
            if (first := self._first_after_zeros(origin + begin)) is None:
                return None
            origin, begin = first, 0
            data = self._fetch(origin, block_bytes)
        stop = end_of_lines(data, begin, encoding)
        if not stop and (more := self._line_bytes(origin, begin, len(data), encoding, final=final)):
            data = self._fetch(origin, begin + more)
            stop = end_of_lines(data, begin, encoding)
        if ZERO in data and encoding.unit == 1:
            data, stop = self._without_zeros(data, origin, begin, stop)
        added = b"" if stop else encoding.newline
        if not stop and len(data) - begin >= MAX_LINE_BYTES:
            stop = begin + whole_characters(data[begin : begin + MAX_LINE_BYTES], encoding)
            self.cuts.cut(self.path)
        elif not stop:
            if not final or origin + len(data) == place.offset:
                return None
            stop = len(data)
        skipped = origin + begin - place.offset
        return self._found(data[begin:stop], skipped, added, encoding, wall_ms)

    def note_first(self) -> None:
        """Remember how the content begins: it may have moved to a copy before anything was read."""
        start = end_of_zeros(self.content, 0) if not self.place.offset and self.content_bytes else None
        if start is not None:
            self.first_at, self.first = start, self._fetch(start, TAIL_BYTES).rstrip(ZERO)
            self.found_bytes = self.size

    def _check_beginning(self) -> None:
        if self.first:
            if not self.begins_as_found(self.content):
                raise BegunAnew
            return
        self.note_first()
        if self.first and self.rotated_at is None:
            raise Filled

    def begins_as_found(self, content: int | Plain) -> bool:
        """True if this content, that of its file, begins as it did when it was found."""
        return pread(content, len(self.first), self.first_at) == self.first

    def start_as_found(self) -> Place:
        """The start of its content as it was found, by which a copy of that is known."""
        head = self.first[self.place.head_start :]
        return structs.replace(self.place, head_bytes=len(head), head_hash=tail_hash(head))

    def _fetch(self, offset: int, size: int) -> bytes:
        return pread(self.content, size, offset)

    def _line_bytes(self, origin: int, begin: int, known: int, encoding: Encoding, *, final: bool) -> int:
        """How many bytes to read of a line that begins `begin` bytes after `origin` and is not whole in `known` bytes.

        0 if its end is not there: it is waited for, up to MAX_LINE_BYTES, unless what is there is `final`.
        """
        start, unit = origin + begin, encoding.unit
        at = max(start + (known - begin) // unit * unit, self.searched)
        while at - start < MAX_LINE_BYTES:
            data = self._ahead(origin, at)
            if stop := end_of_lines(data, 0, encoding):
                return at + stop - start
            if len(data) < unit:
                break
            if unit == 1 and self.plain is None and data.startswith(ZERO) and end_of_zeros(self.fd, at) is None:
                break
            at += len(data) // unit * unit
            if unit > 1 or ZERO not in data:  # zeros may become data, and hold the end then
                self.searched = at
        return MAX_LINE_BYTES if final or at - start >= MAX_LINE_BYTES else 0

    def _ahead(self, origin: int, at: int) -> bytes:
        """Bytes from `at` on. What is compressed is kept from `origin` on: reading backwards would begin again."""
        if self.plain is None:
            return self._fetch(at, STEP_BYTES)
        return self._fetch(origin, at - origin + STEP_BYTES)[at - origin :]

    def _first_after_zeros(self, offset: int) -> int | None:
        """Where data goes on after the zeros at `offset`; None if they reach to the end of the file."""
        first = end_of_zeros(self.content, offset)
        if first is None:
            self.zeros_at_end = self.content_bytes - offset
        elif self.plain is None and self._fetch(offset, 1) != ZERO:
            return offset  # a memory-mapped line was being written while it was read
        else:
            self.zeros.skip(self.path, first - offset, self._fetch(0, WIDE_BYTES))
        return first

    def _without_zeros(self, data: bytes, origin: int, begin: int, stop: int) -> tuple[bytes, int]:
        """Data that ends before zeros that are not part of a line, and the end of its whole lines."""
        again = self._fetch(origin, len(data))
        if again != data:  # a memory-mapped line was being written: the whole ones are read when nothing changes
            self.mtime_ns = -1  # so the next look finds it changed
            return data[:begin], 0
        if stop and (filler := data.find(b"\n" + ZERO, begin, stop)) >= 0:
            return data, filler + 1
        rest = data[begin:].rstrip(ZERO)
        end = origin + begin + len(rest)
        if not stop and len(rest) < len(data) - begin and end_of_zeros(self.content, end) is None:
            self.zeros_at_end = self.content_bytes - end
            return data[: begin + len(rest)], 0
        return data, stop

    def _encoding(self, data: bytes) -> Encoding:
        """How lines end; `data` are the first bytes of the file if nothing was read yet. Raises Compressed."""
        if not self.place.offset:
            if self.plain is None and compression_of(data):
                raise Compressed
            if data and not self.content_bytes:
                raise OSError(errno.ENODATA, NO_SIZE)
            return self._encoding_of(data)
        if self.lines is None:
            return UTF_8
        return self.encoding or self._encoding_of(self._fetch(0, FIRST_BYTES))

    def _encoding_of(self, first: bytes) -> Encoding:
        """The encoding, by the first bytes of the file; remembered when they are all there."""
        encoding = encoding_of(self.encoding_name, first)
        if len(first) >= FIRST_BYTES:
            self.encoding = encoding
        return encoding

    def _found(self, own: bytes, skipped: int, added: bytes, encoding: Encoding, wall_ms: int) -> Block:
        """A block of these bytes of the file, which begin `skipped` bytes after the position."""
        start, self.settled = self.place.offset + skipped, False
        self.place = self.place.after(own[-TAIL_BYTES:], start + len(own), self.content)
        if self.lines is None:
            return self._block(own + added if own and added else own, start, wall_ms)
        records = self.lines.feed(own, start, encoding)
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
        records = self.lines.inherit(other.lines.give())
        self.place = structs.replace(self.place, state=self.lines.state())
        other.place = structs.replace(other.place, state=b"")
        block = self._block(records, self.place.offset, wall_ms)
        return structs.replace(block, positions={**(block.positions or {}), other.key: other.position()})

    def position(self) -> Position:
        """The present position, as the spool stores it."""
        return Position(FILE, self._mark().encode())

    def _mark(self) -> Mark:
        if self.fd >= 0:
            self.written_ms = os.fstat(self.fd).st_mtime_ns // 1_000_000
        return mark_of(self.place, self.path, self.family, self.written_ms, settled=self.settled)

    def _block(self, data: bytes, start: int, wall_ms: int) -> Block:
        end, mark = self.place.offset, self._mark()
        if self.lines is None:
            return Block(data=data, read_at_ms=wall_ms, key=self.key, start=start, end=end, detail=mark.detail)
        positions = {self.key: Position(FILE, mark.encode())}
        is_checked = self.lines.is_checked
        return Block(data, wall_ms, start=start, end=end, positions=positions, is_checked=is_checked)
