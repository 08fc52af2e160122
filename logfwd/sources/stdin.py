"""Standard input as a source: whole lines as they come; the last unfinished line is a record when the input ends.

There is no position to go back to: bytes that were read and not committed are lost with the process. Pipes, sockets
and terminals are read when the event loop finds them readable, so that no task is ever stuck in a read that cannot be
cancelled; their flags are left alone, because other processes share them. Regular files, which an event loop cannot
wait for, are read in a thread.
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

from logfwd.sources.position import Block, Position
from streams.units import MIB

log = structlog.get_logger("logfwd.sources.stdin")


class Stdin:
    """Reads file descriptor 0, or another one."""

    def __init__(self, *, max_record_bytes: int, block_bytes: int = MIB, fd: int = 0) -> None:
        self._max_record_bytes, self._block_bytes, self._fd = max_record_bytes, block_bytes, fd
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0
        self._offset = 0

    async def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """Blocks of whole lines until the input ends."""
        kind = os.fstat(self._fd).st_mode
        if stat.S_ISFIFO(kind):
            with contextlib.suppress(OSError):  # a larger pipe is only faster
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, self._block_bytes)
        in_thread = stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not os.isatty(self._fd))
        while data := await (asyncio.to_thread(self._read) if in_thread else self._read_when_ready()):
            for block in self._cut(data):
                yield block
        if self._unfinished:
            yield self._block(b"".join(self._unfinished), added=b"\n")
            self._unfinished, self._unfinished_bytes = [], 0

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
            await self._readable()
            with contextlib.suppress(BlockingIOError):  # another process read it, or made it non-blocking
                return self._read()

    async def _readable(self) -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_reader(self._fd)

    def _cut(self, data: bytes) -> Iterator[Block]:
        """The whole lines of the unfinished line and these bytes; a line without end leaves in fragments."""
        if stop := data.rfind(b"\n") + 1:
            whole = data[:stop] if not self._unfinished else b"".join([*self._unfinished, data[:stop]])
            self._unfinished, self._unfinished_bytes = [], 0
            yield self._block(whole)
        if stop < len(data):
            self._unfinished.append(data[stop:])
            self._unfinished_bytes += len(data) - stop
        if self._unfinished_bytes >= self._max_record_bytes:
            line, size = b"".join(self._unfinished), self._max_record_bytes
            whole_bytes = len(line) // size * size
            for start in range(0, whole_bytes, size):
                yield self._block(line[start : start + size], added=b"\n")
            self._unfinished = [line[whole_bytes:]] if whole_bytes < len(line) else []
            self._unfinished_bytes = len(line) - whole_bytes

    def _block(self, data: bytes, added: bytes = b"") -> Block:
        start = self._offset
        self._offset += len(data)
        return Block(data=data + added, read_at_ms=time.time_ns() // 1_000_000, start=start, end=self._offset)

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Nothing to do: there are no positions."""

    def forgotten(self) -> list[str]:
        """No keys, so none to forget."""
        return []

    def stop(self) -> list[Block]:
        """Nothing is taken before it is handed over."""
        return []

    def health(self) -> Mapping[str, str]:
        """Nothing: standard input is there, or has ended."""
        return {}

    def lag_bytes(self) -> int:
        """Bytes that were read and wait for the end of their line; how many wait in the pipe is not known."""
        return self._unfinished_bytes
