"""Listeners of the http source: one for each address, for as long as a stream is configured there.

They outlive pipelines: while a stream's pipeline is built again, its clients are answered 503. An address that cannot
be used is tried again until it can.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import structlog

from logfwd.sources.front import Front
from logfwd.sources.http.answers import Answer, try_again
from logfwd.sources.http.body import CountInvalid
from logfwd.sources.http.connection import Body, Connection, Head, Limits
from logfwd.sources.http.ingest import Ingest
from logfwd.sources.http.settings import Served, Terms
from logfwd.sources.party import party_of
from logfwd.sources.turns import Turns
from streams import tasks
from streams.addresses import is_local
from streams.config.units import KIB
from streams.errors import ConfigError, HandshakeFailed, LinkError, PolicyViolation
from streams.security import handshakes, modes
from streams.security.endpoint import Party
from streams.security.listener import Listener
from streams.security.modes import MODES
from streams.security.transport import Link

RETRY_SECONDS = 2.0
"""Pause between attempts to listen on an address that is taken."""
ANSWER_SECONDS = 2.0
"""How long clients may take, after everything has ended, to read their last answers."""
RETIRE_SECONDS = 30.0
"""How long a listener that is not configured any more waits for the outcome of requests that were handed over."""
INBOX_BYTES = 128 * KIB
ALPN = b"http/1.1"

log = structlog.get_logger("logfwd.sources.http")


class Observer(Protocol):
    """What is counted and shown of listeners."""

    def count_http_request(self, stream: str, code: str) -> None:
        """A client was answered; `stream` is empty if it named none that is served, `code` "none" without an answer."""

    def own_certificate(self, expires: datetime.datetime, *, user: str) -> None:
        """When the certificate of a listener expires."""

    def forget_certificates(self, users: Iterable[str]) -> None:
        """These listeners are gone."""


class HttpServer:
    """All listeners of one forwarder."""

    def __init__(self, front: Front, observer: Observer, count_invalid: CountInvalid) -> None:
        self._ingest = Ingest(front, observer.count_http_request, count_invalid)
        self._observer, self._turns = observer, front.turns
        self._doors: dict[Terms, _Door] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    async def serve(self, streams: Sequence[Served]) -> None:
        """Serve these streams from now on: open addresses that are new, close those that nobody uses any more."""
        self._ingest.serve(streams)
        wanted = {each.settings.terms for each in streams}
        for terms in set(self._doors) - wanted:
            self._retire(self._doors.pop(terms))
        self.read_files()
        for terms in sorted(wanted - set(self._doors), key=lambda terms: terms.address):
            self._doors[terms] = door = _Door(terms, self._ingest, self._observer, self._turns)
            await door.open()

    def read_files(self) -> None:
        """Show the certificates that the files have now to new clients."""
        for door in self._doors.values():
            door.read_files()

    def _retire(self, door: _Door) -> None:
        """Close a door; clients whose requests were handed over are answered first."""
        door.stop()
        task = asyncio.create_task(door.close(RETIRE_SECONDS))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the real ports."""
        return [door.listener.address for door in self._doors.values() if door.listener is not None]

    def troubles(self) -> Mapping[str, str]:
        """Why an address cannot be listened on, by address."""
        return {terms.address: door.trouble for terms, door in self._doors.items() if door.trouble}

    def stop(self) -> None:
        """Take nothing more; requests that were handed over are still answered."""
        self._ingest.is_stopping = True
        for door in self._doors.values():
            door.stop()

    async def close(self) -> None:
        """End all connections; call it when every pipeline has ended, so that every request has its outcome."""
        for task in self._retiring:
            task.cancel()
        ends = (door.close(ANSWER_SECONDS) for door in self._doors.values())
        await asyncio.gather(*ends, *self._retiring, return_exceptions=True)


class _Door:
    """One address, and the connections of its clients."""

    def __init__(self, terms: Terms, ingest: Ingest, observer: Observer, turns: Turns) -> None:
        self._terms, self._ingest, self._observer, self._turns = terms, ingest, observer, turns
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._turned_away = 0
        self.listener: Listener | None = None
        self.trouble = ""

    async def open(self) -> None:
        """Listen; if that is not possible now, keep trying."""
        if self._terms.tls is None and not is_local(self._terms.address):
            log.warning(
                "insecure listener",
                address=self._terms.address,
                reason="insecure = true: anybody on the network can read and send records, and read tokens",
                remedy="add [source.tls], or listen on 127.0.0.1 or a Unix socket",
            )
        if not await self._try_to_open():
            self._opening = tasks.forever(f"listener {self._terms.address}", self._keep_trying)

    async def _try_to_open(self) -> bool:
        try:
            party = party_of(self._terms.tls, ALPN)
            listener = Listener(
                party,
                self._serve,
                self._failed,
                handshake_timeout=self._terms.header_seconds,
                max_pending=self._terms.max_connections,
                inbox_bytes=INBOX_BYTES,
                answers_after_goodbye=True,
            )
            await listener.start(self._terms.address, socket_mode=self._terms.socket_mode)
        except (LinkError, ConfigError) as error:
            if not self.trouble:
                log.error("http listener failed", reason=str(error), remedy="free the address, or configure another")
            self.trouble = str(error)
            return False
        self.trouble, self.listener = "", listener
        self._show_certificate(party)
        log.info("http listening", address=listener.address)
        return True

    def read_files(self) -> None:
        """As `HttpServer.read_files`; the old certificate stays if the new one cannot be used."""
        if self._terms.tls is None or self.listener is None:
            return
        try:
            party = party_of(self._terms.tls, ALPN)
            self.listener.replace(party)
            self._show_certificate(party)
        except ConfigError as error:
            log.error(
                "certificate reload failed",
                reason=str(error),
                remedy="mend the files; the old certificate stays in use",
            )

    def _show_certificate(self, party: Party) -> None:
        if self._terms.tls is not None:
            self._observer.own_certificate(party.expires, user=self._terms.address)

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if await self._try_to_open():
                return

    async def _serve(self, link: Link) -> None:
        if self._terms.tls is not None:
            served = [MODES[name] for name in self._terms.tls.modes]
            try:
                mode = modes.check_foreign(served, link.facts)
            except PolicyViolation as error:
                log.warning("http client refused", peer=link.peer, reason=str(error))
                return
            log.debug("http client connected", peer=link.peer, mode=mode.name, **link.facts.log_fields())
        limits = Limits(self._terms.header_seconds, self._terms.body_seconds)
        connection = Connection(link, self._answer, limits, self._turns)
        if len(self._connections) >= self._terms.max_connections:
            await self._turn_away(connection)
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        except Exception as error:  # the top of a task: other clients must go on
            log.exception("http connection failed", peer=link.peer, reason=f"{type(error).__name__}: {error}")
        finally:
            del self._connections[connection]

    async def _turn_away(self, connection: Connection) -> None:
        """Say why. Only as many clients as could be served get the time to finish what they are sending."""
        text = "this listener has as many connections as max_connections allows; try again later"
        answer = try_again(503, "too_many_connections", text, close=True).answer
        self._turned_away += 1
        try:
            await connection.refuse(answer, linger=self._turned_away <= self._terms.max_connections)
        finally:
            self._turned_away -= 1

    async def _answer(self, head: Head, body: Body) -> Answer | None:
        return await self._ingest.answer(self._terms.address, head, body)

    def _failed(self, peer: str, error: HandshakeFailed) -> None:
        if self._terms.tls is not None:
            handshakes.log_failed(log.bind(peer=peer), error)

    def stop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self.listener is not None:
            self.listener.stop()
            self._observer.forget_certificates([self._terms.address])
        for connection in self._connections:
            connection.stop()

    async def close(self, seconds: float) -> None:
        """End the connections; those with a request under way within these seconds."""
        self.stop()
        try:
            if self._connections:
                await asyncio.wait(self._connections.values(), timeout=seconds)
        finally:
            if self.listener is not None:
                await self.listener.close()
