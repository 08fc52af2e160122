"""Accepts links on one address. Half-open handshakes have a deadline and a bound; a failed one is told by reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streams.addresses import join_address, split_address
from streams.errors import HandshakeFailed, LinkError
from streams.security.openssl import Context, Endpoint
from streams.security.transport import Link, establish


class Listener:
    """Accepts links on one address. Half-open handshakes have a deadline and a bound."""

    def __init__(
        self,
        context: Context,
        on_link: Callable[[Link], Awaitable[None]],
        on_failure: Callable[[str, HandshakeFailed], None],
        *,
        handshake_timeout: float,
        max_pending: int,
    ) -> None:
        self._context = context
        self._on_link, self._on_failure = on_link, on_failure
        self._handshake_timeout, self._max_pending = handshake_timeout, max_pending
        self._pending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.address = ""

    def replace_context(self, context: Context) -> None:
        """Use another certificate for links from now on; those that live stay."""
        self._context = context

    def _accept(self) -> Link:
        link = Link(Endpoint(self._context, server_side=True))
        task = asyncio.get_running_loop().create_task(self._serve(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return link

    async def _serve(self, link: Link) -> None:
        self._pending += 1
        try:
            if self._pending > self._max_pending:
                link.established.cancel()  # nobody waits for it
                await asyncio.sleep(0)  # by then the link has its connection, and can be closed
                raise HandshakeFailed("too_many_handshakes", "too many handshakes under way")
            await establish(link, self._handshake_timeout)
        except HandshakeFailed as error:
            self._tell(link, error)
            await link.close()
            return
        except LinkError as error:
            self._tell(link, HandshakeFailed("disconnected", str(error)))
            return
        finally:
            self._pending -= 1
        try:
            await self._on_link(link)
        finally:
            link.abort()

    def _tell(self, link: Link, error: HandshakeFailed) -> None:
        error.seen = link.attempt().told()
        self._on_failure(link.peer, error)

    async def close(self) -> None:
        """Take no new links, and end those that are left."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


async def listen(
    address: str,
    context: Context,
    on_link: Callable[[Link], Awaitable[None]],
    *,
    on_failure: Callable[[str, HandshakeFailed], None],
    handshake_timeout: float = 10.0,
    max_pending: int = 256,
    reuse_port: bool = False,
) -> Listener:
    """Listen on "host:port" (port 0: the system's choice); `on_link` is run as a task for every completed handshake.

    LinkError if the address cannot be listened on.
    """
    host, port = split_address(address)
    listener = Listener(context, on_link, on_failure, handshake_timeout=handshake_timeout, max_pending=max_pending)
    loop = asyncio.get_running_loop()
    try:
        listener._server = await loop.create_server(
            listener._accept, host or None, port, reuse_port=reuse_port, start_serving=True, backlog=1024
        )
    except OSError as error:
        raise LinkError(f"{address}: cannot listen there: {error.strerror or error}") from error
    bound = listener._server.sockets[0].getsockname()
    listener.address = join_address(host or bound[0], bound[1])
    return listener
