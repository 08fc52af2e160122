"""The thread that admin HTTP is served on, with an event loop of its own and a bounded number of connections.

What belongs to the program is asked for on the program's loop (`Loop`), with a time limit. When there are too many
connections, the one that has been quiet for longest makes room for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

MOST_CONNECTIONS = 64
BACKLOG = 1024
"""Connections that have not been accepted: for what exceeds it the kernel lets a client wait a second or more."""
CLOSE_SECONDS = 2.0
ASK_SECONDS = 10.0
FRESH_SECONDS = 10.0
"""The program counts as alive for so long after its loop has turned."""
STUCK_SECONDS = 5.0

T = TypeVar("T")
MakeProtocol = Callable[[], asyncio.Protocol]
"""Makes what serves a connection."""


class Loop:
    """The program's event loop, as the thread sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turned_at = -FRESH_SECONDS
        self._question: asyncio.Future[None] | None = None

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call something there; TimeoutError if the loop is too busy."""

        async def call() -> T:
            return work(*arguments)

        return await self.wait_for(call)

    async def wait_for(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await something there; TimeoutError if the loop is too busy."""

        async def call() -> T:
            return await work()

        async with asyncio.timeout(ASK_SECONDS):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))

    async def turns(self) -> bool:
        """Whether it turns; answered at once if it has lately, and asked again meanwhile."""
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._ask())
        if time.monotonic() - self._turned_at >= FRESH_SECONDS:
            await asyncio.wait({self._question}, timeout=STUCK_SECONDS)
        return time.monotonic() - self._turned_at < FRESH_SECONDS

    async def _ask(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self.run(lambda: None)
            self._turned_at = time.monotonic()


class Connections:
    """Those that are open, the quietest first."""

    def __init__(self) -> None:
        self._open: dict[_Connection, None] = {}

    def add(self, connection: _Connection) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            quietest = next(iter(self._open))
            self.remove(quietest)  # now: many may come before the loop tells that it is lost
            quietest.transport.abort()
        self._open[connection] = None

    def heard(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    def remove(self, connection: _Connection) -> None:
        self._open.pop(connection, None)

    async def close(self) -> None:
        """End all that are left, before their loop ends."""
        for connection in self._open:
            connection.transport.abort()
        while self._open:
            await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """Passes everything on to the HTTP server's own protocol."""

    transport: asyncio.Transport

    def __init__(self, served: asyncio.Protocol, connections: Connections) -> None:
        self._served, self._connections = served, connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self)
        self._served.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._connections.heard(self)
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self)
        self._served.connection_lost(error)

    def pause_writing(self) -> None:
        self._served.pause_writing()

    def resume_writing(self) -> None:
        self._served.resume_writing()


@contextlib.asynccontextmanager
async def serving(sock: socket.socket, prepare: Callable[[Loop], MakeProtocol]) -> AsyncIterator[asyncio.Future[None]]:
    """Serve on a thread until the block is left; the future gets the error that ends it before.

    `prepare` is called on the thread.
    """
    program = asyncio.get_running_loop()
    ended: asyncio.Future[None] = program.create_future()
    ended.add_done_callback(lambda done: done.cancelled() or done.exception())  # no report if it ends with the program
    server = _Server(sock, lambda: prepare(Loop(program)), lambda error: _tell(program, ended, error))
    threading.Thread(target=server.run, name="admin", daemon=True).start()
    try:
        yield ended
    finally:
        server.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait({ended}, timeout=CLOSE_SECONDS)


def _tell(program: asyncio.AbstractEventLoop, ended: asyncio.Future[None], error: BaseException | None) -> None:
    """Called on the thread at its end."""

    def settle() -> None:
        if not ended.done():
            ended.set_exception(error) if error is not None else ended.set_result(None)

    with contextlib.suppress(RuntimeError):  # the program's loop is closed
        program.call_soon_threadsafe(settle)


class _Server:
    """What runs on the thread."""

    def __init__(
        self,
        sock: socket.socket,
        prepare: Callable[[], MakeProtocol],
        tell: Callable[[BaseException | None], None],
    ) -> None:
        self._sock, self._prepare, self._tell = sock, prepare, tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._stopped = threading.Event()

    def run(self) -> None:
        """The thread's work."""
        error: BaseException | None = None
        try:
            asyncio.run(self._serve())
        except Exception as failure:  # noqa: BLE001 — the top of a thread: the program is told
            error = failure
        self._tell(error)

    def stop(self) -> None:
        """End it; it may not even have begun."""
        self._stopped.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._loop, connections, make_protocol = asyncio.get_running_loop(), Connections(), self._prepare()
        listening = await self._loop.create_server(
            lambda: _Connection(make_protocol(), connections), sock=self._sock, backlog=BACKLOG
        )
        try:
            if not self._stopped.is_set():
                await self._stop.wait()
        finally:
            listening.close()
            await connections.close()
