"""Standard input as a source: whole lines as they come; the last unfinished line is a record when the input ends.

There is no position to go back to: bytes that were read and not committed are lost with the process. They outlive a
pipeline, though (uncommitted.py).

Pipes, sockets and terminals are read when the event loop finds them readable, so that no task is ever stuck in a read
that cannot be cancelled; their flags are left alone, because other processes share them. Regular files, which an event
loop cannot wait for, are read in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterator, Mapping

import structlog

from logfwd.sources.formats.encodings import (
    FIRST_BYTES,
    UTF_8,
    Encoding,
    encoding_of,
    end_of_lines,
    whole_characters,
)
from logfwd.sources.formats.text import Count, ignore
from logfwd.sources.lines import LineFormat, Lines
from logfwd.sources.longlines import MAX_LINE_BYTES, Cuts
from logfwd.sources.position import STDIN, Block, Mark, Position
from logfwd.sources.settings import StdinSource
from logfwd.sources.uncommitted import Uncommitted
from streams.config.units import MIB
from streams.descriptors import readable

KEY = "stdin"
"""Under which the spool stores how much of the input is durable."""

JSON_LINES = StdinSource()

log = structlog.get_logger("logfwd.sources.stdin")


class Stdin:
    """Reads file descriptor 0, or another one. Made once in a process, for one pipeline after the other."""

    def __init__(
        self,
        *,
        max_record_bytes: int,
        block_bytes: int = MIB,
        fd: int = 0,
        settings: StdinSource = JSON_LINES,
        count: Count = ignore,
    ) -> None:
        self.max_record_bytes, self.settings, self.count = max_record_bytes, settings, count
        self._block_bytes, self._fd = block_bytes, fd
        self._unfinished = bytearray()
        """What was read of a line whose end was not."""
        self._cuts = Cuts()
        self._offset = 0
        self._uncommitted = Uncommitted(KEY, STDIN)
        self._reading: asyncio.Future[bytes] | None = None
        self._ended = False
        self._encoding: Encoding | None = None
        self._wait_seconds: float | None = None
        self._lines: Lines | None = None
        """Makes records of lines that are none themselves."""

    async def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """Blocks of whole lines until the input ends; first those that an earlier pipeline did not commit."""
        self._uncommitted.restart(positions)
        while True:
            while (block := self._uncommitted.next()) is not None:
                yield block
            if self._ended:
                return
            try:
                async with asyncio.timeout(self._open_seconds()):
                    data = await self._next()
            except TimeoutError:
                self._end_records(everything=False)
            else:
                self._take(data)

    def _open_seconds(self) -> float | None:
        """How long to wait for the next line before open records are whole."""
        return self._wait_seconds if self._lines is not None and self._lines.can_end else None

    async def _next(self) -> bytes:
        """The next bytes; none at the end."""
        kind = os.fstat(self._fd).st_mode
        if stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not os.isatty(self._fd)):
            return await self._read_in_thread()
        if stat.S_ISFIFO(kind) and not self._offset:
            with contextlib.suppress(OSError):  # a larger pipe is only faster
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, self._block_bytes)
        return await self._read_when_ready()

    async def _read_in_thread(self) -> bytes:
        """A read that outlives a pipeline that ends meanwhile."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read))
        data = await asyncio.shield(self._reading)
        self._reading = None
        return data

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, self._block_bytes)
        except BlockingIOError:
            raise
        except OSError as error:  # a terminal that hung up
            log.warning("stdin read failed", reason=error.strerror)
            return b""

    async def _read_when_ready(self) -> bytes:
        while True:
            await readable(self._fd)
            with contextlib.suppress(BlockingIOError):  # another process read it, or made it non-blocking
                return self._read()

    def _take(self, data: bytes) -> None:
        """What was read, as blocks; nothing means the end."""
        is_end = not data
        if self._encoding is None and self._must_wait_for_encoding(data):
            return
        if self._encoding is None:
            data = self._begin(data)
        if data:
            for block in self._cut(data):
                self._uncommitted.append(block)
        if not is_end:
            return
        if self._unfinished:
            self._uncommitted.append(self._block(self._taken(len(self._unfinished)), added=b"\n"))
        self._end_records(everything=True)
        self._ended = True

    def _end_records(self, *, everything: bool) -> None:
        """No line follows, for now or at all: what is open is a record."""
        if self._lines is not None and self._lines.has_open:
            start, self._offset = self._offset, self._offset + 1  # so that it is committed after the block before it
            self._uncommitted.append(self._made(self._lines.end(everything=everything), start))

    def _made(self, records: bytes, start: int) -> Block:
        """A block of records that were made from lines; it is not cut."""
        positions = {KEY: Position(STDIN, Mark(self._offset, detail=self._uncommitted.session).encode())}
        now_ms = time.time_ns() // 1_000_000
        return Block(records, now_ms, start=start, end=self._offset, source=STDIN, positions=positions)

    def _must_wait_for_encoding(self, data: bytes) -> bool:
        """True while the first bytes, which decide about byte order and mark, are not there; keeps them."""
        if not data or b"\n" in data or len(self._unfinished) + len(data) >= FIRST_BYTES:
            return False
        self._unfinished += data
        return True

    def _begin(self, data: bytes) -> bytes:
        """The first bytes without their mark."""
        first = self._taken(len(self._unfinished)) + data
        self._encoding = encoding_of(self.settings.encoding, first)
        self._cuts = Cuts(self.count)
        made = LineFormat(self.settings, self.max_record_bytes, self.count)
        self._lines, self._wait_seconds = made.reader(self._uncommitted.session), made.wait_seconds
        self._offset = len(self._encoding.bom) if first.startswith(self._encoding.bom) else 0
        return first[self._offset :]

    def _cut(self, data: bytes) -> Iterator[Block]:
        """The whole lines of the unfinished line and these bytes; a line without end is cut."""
        encoding = self._encoding or UTF_8
        begin = len(self._unfinished) // encoding.unit * encoding.unit  # what was read may end within a code unit
        self._unfinished += data
        if stop := end_of_lines(self._unfinished, begin, encoding):
            yield self._block(self._taken(stop))
        while len(self._unfinished) >= MAX_LINE_BYTES:
            line = bytes(self._unfinished[:MAX_LINE_BYTES])
            yield self._block(self._taken(whole_characters(line, encoding)), added=b"\n")
            self._cuts.cut(KEY)

    def _taken(self, size: int) -> bytes:
        """The first bytes of what is unfinished, which are so no more."""
        with memoryview(self._unfinished) as unfinished:
            taken = bytes(unfinished[:size])
        del self._unfinished[:size]
        return taken

    def _block(self, data: bytes, added: bytes = b"") -> Block:
        start = self._offset
        self._offset += len(data)
        now_ms = time.time_ns() // 1_000_000
        if self._lines is not None:
            return self._made(self._lines.feed(data, start, self._encoding or UTF_8), start)
        return Block(data + added, now_ms, KEY, start, self._offset, self._uncommitted.session, source=STDIN)

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of the blocks that are durable as a whole."""
        self._uncommitted.committed(positions)

    def forgotten(self) -> list[str]:
        """The one key stays."""
        return []

    def stop(self) -> list[Block]:
        """The lines that were read and not handed over."""
        return self._uncommitted.rest()

    def health(self) -> Mapping[str, str]:
        """Nothing: standard input is there, or has ended."""
        return {}

    def lag_bytes(self) -> int:
        """Bytes that were read and are not committed; how many wait in the pipe is not known."""
        return len(self._unfinished) + self._uncommitted.byte_count
