"""A listener for connections that carry messages, over TCP or TLS.

A connection is read only as fast as its messages find room in the inbox: beyond that the sender has to wait, or, with
`over = "drop"`, loses messages, counted. Whatever breaks the framing, is too long, too slow or not allowed ends that
connection alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import structlog

from logfwd.sources.party import party_of
from logfwd.sources.syslog.counts import Losses
from logfwd.sources.syslog.framing import Framer
from logfwd.sources.syslog.inbox import Inbox, Records
from logfwd.sources.syslog.settings import Served, SyslogSource
from logfwd.sources.turns import Turns
from streams.config.units import KIB
from streams.errors import HandshakeFailed, LinkError, PolicyViolation
from streams.security import handshakes, modes
from streams.security.listener import Listener
from streams.security.modes import MODES
from streams.security.transport import Link

HANDSHAKE_SECONDS = 10.0
STOP_SECONDS = 1.0
ALPN = b"syslog"
"""For clients that offer it; none is registered for RFC 5425."""
INBOX_BYTES = 64 * KIB
AT_ONCE, AT_ONCE_BYTES = 64, 16 * KIB
"""Messages of one connection that are parsed before others get their turn, and their size unless it is a single one."""

log = structlog.get_logger("logfwd.sources.syslog")


class Connections:
    """One address."""

    def __init__(
        self, transport: str, address: str, served: Served, inbox: Inbox, losses: Losses, turns: Turns
    ) -> None:
        self._transport, self._configured = transport, address
        self._served, self._inbox, self._losses = served, inbox, losses
        self._turns = turns
        self._listener: Listener | None = None
        self._links: dict[Link, asyncio.Task[None]] = {}
        self.address = ""

    @property
    def settings(self) -> SyslogSource:
        """As they are now: a reload may change them."""
        return self._served.settings

    async def open(self) -> None:
        """Listen; LinkError or ConfigError if that is not possible."""
        party = party_of(self.settings.tls if self._transport == "tcp_tls" else None, ALPN)
        listener = Listener(
            party,
            self._serve,
            self._failed,
            handshake_timeout=HANDSHAKE_SECONDS,
            max_pending=self.settings.max_connections,
            inbox_bytes=INBOX_BYTES,
        )
        await listener.start(self._configured)
        self._listener, self.address = listener, listener.address

    def use(self, served: Served) -> None:
        """Go on with other limits, and with other files and modes for new connections; ConfigError for wrong files."""
        self._served = served
        if self._transport == "tcp_tls" and self._listener is not None:
            self._listener.replace(party_of(served.settings.tls, ALPN))

    async def stop(self) -> None:
        """End the connections, and take what they have sent so far, if there is room for it."""
        if self._listener is None:
            return
        self._listener.stop()
        for link in self._links:
            link.abort()
        if self._links:
            await asyncio.wait(self._links.values(), timeout=STOP_SECONDS)
        await self._listener.close()
        self._listener = None

    # -- one connection ----------------------------------------------------------------------------------------

    async def _serve(self, link: Link) -> None:
        if len(self._links) >= self.settings.max_connections:
            self._losses.ended("too_many_connections", link.peer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            if self._transport == "tcp_tls" and (refusal := self._refusal(link)):
                self._losses.ended(refusal, link.peer)
                return
            await self._converse(link)
        except Exception as error:  # the top of a task: other clients must go on
            log.exception("syslog connection failed", peer=link.peer, reason=f"{type(error).__name__}: {error}")
        finally:
            del self._links[link]

    def _refusal(self, link: Link) -> str:
        """Why a client may not send over TLS; empty if it may."""
        tls, patterns = self.settings.tls, self.settings.identities
        try:
            mode = modes.check_foreign([MODES[name] for name in tls.modes] if tls is not None else (), link.facts)
        except PolicyViolation:
            return "weaker_than_mode"
        if patterns and not any(fnmatchcase(name, each) for name in link.facts.identities for each in patterns):
            return "identity"
        log.debug("syslog client connected", peer=link.peer, mode=mode.name, **link.facts.log_fields())
        return ""

    async def _converse(self, link: Link) -> None:
        loop, framer = asyncio.get_running_loop(), Framer(self.settings.max_message_bytes)
        deadline = loop.time() + self.settings.idle_seconds
        try:
            while True:
                was_unfinished = framer.is_unfinished
                async with asyncio.timeout_at(deadline):
                    data = await link.receive()
                if not data:
                    await self._end(framer, link)
                    return
                messages = framer.feed(data)
                await self._take(messages)
                if framer.breach:
                    self._losses.ended(framer.breach, link.peer)
                    return
                if not framer.is_unfinished:
                    deadline = loop.time() + self.settings.idle_seconds
                elif messages or not was_unfinished:  # another message has begun
                    deadline = loop.time() + self.settings.message_seconds
        except TimeoutError:
            self._losses.ended("idle" if not framer.is_unfinished else "half_message", link.peer)
            await self._end(framer, link)
        except LinkError:
            await self._end(framer, link)

    async def _take(self, messages: Sequence[bytes], *, parse: bool = True) -> None:
        for some in _slices(messages):
            await self._turns.take()
            may_wait = self.settings.over != "drop"
            if not may_wait and not self._inbox.has_room(sum(map(len, some))):
                self._losses.dropped("no_room", len(some))  # before it is parsed
                continue
            records = Records(some, parse=parse, defaults=self._served.defaults)
            if may_wait:
                await self._inbox.wait_and_put(records)
            elif not self._inbox.put(records):
                self._losses.dropped("no_room", len(some))

    async def _end(self, framer: Framer, link: Link) -> None:
        """The beginning of a message that has no end is kept: as a message if newlines end them, else as invalid."""
        rest = framer.end()
        if rest:
            if framer.counts_octets:
                self._losses.ended("half_message", link.peer)
            await self._take([rest], parse=not framer.counts_octets)

    def _failed(self, peer: str, error: HandshakeFailed) -> None:
        if self._transport == "tcp_tls":
            handshakes.log_failed(log.bind(stream=self._served.stream, peer=peer), error)
            self._losses.ended("handshake", peer)


def _slices(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """In order, each within AT_ONCE and AT_ONCE_BYTES, or a single message."""
    start = size = 0
    for index, message in enumerate(messages):
        if index > start and (index - start == AT_ONCE or size + len(message) > AT_ONCE_BYTES):
            yield messages[start:index]
            start, size = index, 0
        size += len(message)
    if messages:
        yield messages[start:]
