"""Accepts links on one address. Half-open handshakes have a deadline and a bound; a failed one is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streams.addresses import join_address, split_address
from streams.errors import HandshakeFailed, LinkError
from streams.security.endpoint import Party
from streams.security.transport import Link


class Listener:
    """Accepts links on one address. Half-open handshakes have a deadline and a bound."""

    def __init__(
        self,
        party: Party,
        on_link: Callable[[Link], Awaitable[None]],
        on_failure: Callable[[str, HandshakeFailed], None],
        *,
        handshake_timeout: float,
        max_pending: int,
    ) -> None:
        self._party = party
        self._on_link, self._on_failure = on_link, on_failure
        self._handshake_timeout, self._max_pending = handshake_timeout, max_pending
        self._pending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.address = ""

    async def start(self, address: str, *, reuse_port: bool = False) -> None:
        """Listen on "host:port"; `address` then has the real port. LinkError if that is not possible."""
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._accept, host or None, port, reuse_port=reuse_port, start_serving=True, backlog=1024
            )
        except OSError as error:
            raise LinkError(f"{address}: cannot listen there: {error.strerror or error}") from error
        bound = self._server.sockets[0].getsockname()
        self.address = join_address(host or bound[0], bound[1])

    def replace(self, party: Party) -> None:
        """Use another party (a new certificate) for new links; existing ones stay."""
        self._party = party

    def _accept(self) -> Link:
        link = Link(self._party.endpoint())
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
            await link.establish(self._handshake_timeout)
        except HandshakeFailed as error:
            self._report(link, error)
            await link.close()
            return
        except LinkError as error:
            self._report(link, HandshakeFailed("disconnected", str(error)))
            return
        finally:
            self._pending -= 1
        try:
            await self._on_link(link)
        finally:
            link.abort()

    def _report(self, link: Link, error: HandshakeFailed) -> None:
        error.seen = link.attempt().log_fields()
        self._on_failure(link.peer, error)

    async def close(self) -> None:
        """Accept no new links, and end those that are left."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


async def listen(
    address: str,
    party: Party,
    on_link: Callable[[Link], Awaitable[None]],
    *,
    on_failure: Callable[[str, HandshakeFailed], None],
    handshake_timeout: float = 10.0,
    max_pending: int = 256,
    reuse_port: bool = False,
) -> Listener:
    """Listen on "host:port" (port 0: the system chooses); `on_link` runs as a task for every completed handshake.

    `on_failure` gets the peer's address and the reason of every failed one. LinkError if the address cannot be used.
    """
    listener = Listener(party, on_link, on_failure, handshake_timeout=handshake_timeout, max_pending=max_pending)
    await listener.start(address, reuse_port=reuse_port)
    return listener
