"""Accepts links on one address. Half-open handshakes have a deadline and a bound (pending.py); failures are told.

A listener with `proxies` is for these alone: each connection begins with a header (introduction.py) that says where its
client is, for logs and the bound. A connection that ends before its peer has said a hello of TLS that could be answered
is a probe, such as a load balancer's, and so is one that a proxy makes on its own account: no failure of a handshake.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from streams import handed
from streams.addresses import UNIX, join_address, split_address
from streams.errors import HandshakeFailed, LinkError
from streams.security.endpoint import Party
from streams.security.introduction import Introduction
from streams.security.pending import Network, Pending
from streams.security.transport import INBOX_HIGH_BYTES, Link
from streams.turns import Turns

BACKLOG = 1024


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
        trusted: Sequence[Network] = (),
        proxies: Sequence[Network] | None = None,
        on_probe: Callable[[], None] = lambda: None,
        turns: Turns | None = None,
        inbox_bytes: int = INBOX_HIGH_BYTES,
        answers_after_goodbye: bool = False,
    ) -> None:
        """`trusted`: networks whose handshakes are not bounded. `turns`: shared with others of the process.

        `proxies`: networks that speak PROXY protocol version 2; then nobody else is served. None: nobody speaks it.
        """
        self._party = party
        self._changes = 0
        """How often handshakes that were under way came to count no more."""
        self._turns = turns or Turns()
        self._on_link, self._on_failure, self._on_probe = on_link, on_failure, on_probe
        self._handshake_timeout = handshake_timeout
        self._inbox_bytes, self._answers_after_goodbye = inbox_bytes, answers_after_goodbye
        self._pending = Pending[Link](max_pending, trusted)
        self._proxies = proxies
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._unix_path: Path | None = None
        self.address = ""
        self.outlives_us = False
        """A service manager keeps the address open: what is not accepted here waits for the next process."""

    async def start(self, address: str, *, reuse_port: bool = False, socket_mode: int = 0o600) -> None:
        """Listen on "host:port" or "unix:/path"; `address` then has the real port. LinkError if that is not possible.

        `socket_mode`: permissions of a Unix socket; who may write to it may connect.
        """
        try:
            if address.startswith(UNIX):
                await self._start_unix(Path(address.removeprefix(UNIX)), socket_mode)
                self.address = address
            else:
                self.address = await self._start_tcp(address, reuse_port)
        except OSError as error:
            raise LinkError(f"{address}: cannot listen there: {error.strerror or error}") from error

    async def _start_tcp(self, address: str, reuse_port: bool) -> str:
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        for each in await _handed(host, port):
            self.outlives_us |= bool(each.name)
            self._servers.append(await loop.create_server(self._accept, sock=each.sock, backlog=BACKLOG))
        if not self._servers:
            server = await loop.create_server(
                self._accept, host or None, port, reuse_port=reuse_port, start_serving=True, backlog=BACKLOG
            )
            self._servers.append(server)
        bound = self._servers[0].sockets[0].getsockname()
        return join_address(host or bound[0], bound[1])

    async def _start_unix(self, path: Path, mode: int) -> None:
        """A socket that a killed process left behind is replaced."""
        self._servers.append(
            await asyncio.get_running_loop().create_unix_server(self._accept, str(path), backlog=BACKLOG)
        )
        os.chmod(path, mode)
        self._unix_path = path

    def replace(self, party: Party, *, end_handshakes: bool = False) -> None:
        """Use another party (a new certificate) for new links; existing ones stay.

        `end_handshakes`: those that are under way make no link; they could end in what is no longer served.
        """
        self._party = party
        self._changes += end_handshakes

    def limit(
        self,
        *,
        handshake_timeout: float,
        max_pending: int,
        trusted: Sequence[Network],
        proxies: Sequence[Network] | None,
    ) -> None:
        """Use other bounds and proxies for handshakes that begin from now on."""
        self._handshake_timeout, self._proxies = handshake_timeout, proxies
        self._pending.limit(max_pending, trusted)

    def _accept(self) -> Link | Introduction:
        link = Link(
            self._party.endpoint(),
            turns=self._turns,
            inbox_bytes=self._inbox_bytes,
            answers_after_goodbye=self._answers_after_goodbye,
        )
        introduction = Introduction(link, self._proxies) if self._proxies is not None else None
        task = asyncio.get_running_loop().create_task(self._keep(link, introduction, self._changes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return introduction or link

    async def _keep(self, link: Link, introduction: Introduction | None, changes: int) -> None:
        try:
            await self._serve(link, introduction, changes)
        finally:
            link.abort()
            link.forget()

    async def _serve(self, link: Link, introduction: Introduction | None, changes: int) -> None:
        is_probe = False
        try:
            await asyncio.sleep(0)  # by then the link has its connection, and can be closed
            self._enter(link)
            if introduction is not None:
                is_probe = (await introduction.made()).is_local
                self._pending.leave(link)
                self._enter(link)  # from now on it counts for the client's address
            await link.establish(self._handshake_timeout)
            if changes != self._changes:
                raise HandshakeFailed("outdated", "other modes are served since the handshake began")
        except HandshakeFailed as error:
            await self._turns.take(link.host)  # a thousand may fail at once
            self._report(link, error, is_probe)
            await link.close()
            return
        except LinkError as error:
            self._report(link, HandshakeFailed("disconnected", str(error)), is_probe)
            return
        finally:
            self._pending.leave(link)
        await self._on_link(link)

    def _enter(self, link: Link) -> None:
        """Count it among the handshakes under way; somebody may have to make room, maybe itself."""
        leaving = self._pending.enter(link, time.monotonic())
        if leaving is not None and not leaving.established.done():  # it may just have ended
            leaving.established.set_exception(HandshakeFailed("too_many_handshakes", "too many handshakes under way"))

    def _report(self, link: Link, error: HandshakeFailed, is_probe: bool) -> None:
        attempt = link.attempt()
        if is_probe or (error.reason == "disconnected" and attempt.cipher == "none"):  # it has not been answered
            self._on_probe()
            return
        error.seen = attempt.log_fields()
        self._on_failure(link.peer, error)

    def stop(self) -> None:
        """Accept no new links; existing ones stay."""
        for server in self._servers:
            server.close()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
            self._unix_path = None

    async def close(self) -> None:
        """Accept no new links, and end those that are left."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()


async def _handed(host: str, port: int) -> list[handed.Handed]:
    """Sockets that listen on this address already."""
    if not port or not handed.are_there():
        return []
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return handed.take(name[:2] for *_, name in found)


async def listen(
    address: str,
    party: Party,
    on_link: Callable[[Link], Awaitable[None]],
    *,
    on_failure: Callable[[str, HandshakeFailed], None],
    handshake_timeout: float = 10.0,
    max_pending: int = 1024,
    trusted: Sequence[Network] = (),
    proxies: Sequence[Network] | None = None,
    on_probe: Callable[[], None] = lambda: None,
    turns: Turns | None = None,
    inbox_bytes: int = INBOX_HIGH_BYTES,
    reuse_port: bool = False,
    socket_mode: int = 0o600,
) -> Listener:
    """Listen on "host:port" (port 0: the system chooses); `on_link` runs as a task for every completed handshake.

    `on_failure` gets the peer's address and the reason of every failed one; `on_probe` is called for those that were
    only probes. LinkError if the address cannot be used.
    """
    listener = Listener(
        party,
        on_link,
        on_failure,
        handshake_timeout=handshake_timeout,
        max_pending=max_pending,
        trusted=trusted,
        proxies=proxies,
        on_probe=on_probe,
        turns=turns,
        inbox_bytes=inbox_bytes,
    )
    await listener.start(address, reuse_port=reuse_port, socket_mode=socket_mode)
    return listener
