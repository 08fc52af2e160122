"""The first bytes of a connection that a proxy passes on: read here, before the link takes over (proxied.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from streams.addresses import join_address, peer_and_host
from streams.errors import HandshakeFailed
from streams.security.pending import Network, is_within
from streams.security.proxied import MOST_BYTES, Introduced, parse
from streams.security.transport import Link

HEADER_SECONDS = 2.0
"""A proxy sends its header as soon as it is connected."""


class Introduction(asyncio.BufferedProtocol):
    """The protocol of a connection until its header is complete; then the link has it, under the client's address."""

    def __init__(self, link: Link, proxies: Sequence[Network]) -> None:
        self._link, self._proxies = link, proxies
        self._room = memoryview(bytearray(MOST_BYTES))
        self._filled = 0
        self._made: asyncio.Future[Introduced] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    async def made(self) -> Introduced:
        """Wait for the header. HandshakeFailed without one; the connection is closed then."""
        over: set[asyncio.Future[Any]] = {self._made, self._link.established}
        try:
            await asyncio.wait(over, timeout=HEADER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if self._made.done():
                return self._made.result()
            if self._link.established.done():
                self._link.established.result()
            raise HandshakeFailed("no_proxy_header", f"no header of PROXY protocol within {HEADER_SECONDS:g} s")
        except BaseException:
            self._transport.abort()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._link.peer, self._link.host = peer_and_host(transport.get_extra_info("peername"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._link.established.done():  # it has failed, and is about to be closed
            return
        self._filled += nbytes
        self._link.heard_bytes = self._filled
        try:
            if not is_within(self._link.host, self._proxies):
                raise HandshakeFailed("not_a_proxy", "its address is not in proxy_from of this listener")
            found = parse(bytes(self._room[: self._filled]))
        except HandshakeFailed as error:
            self._filled = 0  # a full buffer takes nothing more
            self._link.established.set_exception(error)
            return
        if found is not None:
            self._hand_over(found)

    def _hand_over(self, found: Introduced) -> None:
        link, rest = self._link, self._room[found.size : self._filled]
        self._transport.set_protocol(link)
        link.connection_made(self._transport)
        if found.client is not None:
            link.host, link.peer = found.client[0], join_address(*found.client)
        link.heard_bytes = found.size
        self._made.set_result(found)
        if rest:
            link.get_buffer(len(rest))[: len(rest)] = rest
            link.buffer_updated(len(rest))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._link.established.done():
            self._link.established.set_exception(HandshakeFailed("disconnected", "the peer closed the connection"))
