"""The receiver as a service: one sink, its listeners, their links; starts, reloads certificates, stops.

A stop is announced to every forwarder (GOAWAY), so that batches under way are answered and no new ones arrive; batches
that are not answered within the grace are sent again to another receiver. The receiver keeps no state that a kill could
lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import msgspec
import structlog

from logreceiver import status
from logreceiver.config import Admin, ReceiverConfig
from logreceiver.config import Listener as ListenerSettings
from logreceiver.ledger.writer import Ledger
from logreceiver.links.grants import Grants
from logreceiver.links.session import Session
from logreceiver.links.shared import Shared
from logreceiver.metrics import ReceiverMetrics
from logreceiver.posture import report
from logreceiver.sinks.make import make_sink
from streams import descriptors
from streams.addresses import join_address, split_address
from streams.errors import Code, ConfigError, HandshakeFailed
from streams.security import handshakes, stacks
from streams.security.endpoint import Party
from streams.security.listener import Listener, listen
from streams.security.transport import Link
from streams.telemetry import admin
from streams.telemetry.metrics import CollectorRegistry

CERTIFICATE_CHECK_SECONDS = 5.0
OWN_DESCRIPTORS = 64
"""The program itself, its connections to the sink, and those who ask its admin address."""

INBOX_BYTES = 256 * 1024
"""What a link may have received beyond what it works on."""

log = structlog.get_logger("logreceiver")


class Service:
    """`async with Service(config)`: ready when entered, stopped cleanly when left.

    `worker`: its number among several processes that share the listeners' ports.
    """

    def __init__(self, config: ReceiverConfig, *, worker: int | None = None) -> None:
        self._config = config
        self._worker = worker
        self.registry = CollectorRegistry()
        self.metrics = ReceiverMetrics(self.registry)
        self._links: Counter[str] = Counter()
        """Open links by identity; an identity without one has no entry."""
        self._live: set[Session] = set()
        self._stack = contextlib.AsyncExitStack()
        """Closes listeners, ledger and sink, in the reverse of the order in which they were opened."""
        self._max_links, self._max_pending = config.limits.max_links, config.limits.max_handshakes
        self._stopping = False
        self._since = datetime.now(UTC)
        """Since when the posture is counted."""
        self.listeners: list[Listener] = []
        self.admin_address = ""

    async def __aenter__(self) -> Service:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self) -> None:
        config = self._config
        self._fit_descriptors()
        grants = Grants.load(config.grant_key_file)
        sink = make_sink(config.sink)
        self._stack.push_async_callback(sink.close)
        await sink.start()
        ledger = None
        if config.ledger is not None:
            ledger = await self._stack.enter_async_context(Ledger(config.ledger.topic, sink, self.metrics))
        self._shared = Shared(config, sink, grants, self.metrics, ledger)
        for settings in config.listener:
            party = self._party(settings)
            listener = await listen(
                settings.address,
                party,
                self._serve,
                on_failure=self._failed,
                handshake_timeout=config.limits.handshake_seconds,
                max_pending=self._max_pending,
                trusted=[ip_network(each) for each in settings.trusted_sources],
                turns=self._shared.turns,
                inbox_bytes=INBOX_BYTES,
                reuse_port=self._worker is not None,
            )
            self._stack.push_async_callback(listener.close)
            self.listeners.append(listener)
            self.metrics.own_certificate(party.expires, user=settings.address, delegated=party.delegated_until)
            log.info("listening", address=listener.address, modes=list(settings.modes))
        if config.admin is not None:
            server = await self._stack.enter_async_context(
                admin.serve(
                    self._admin_address(config.admin),
                    self.registry,
                    ready=self._ready,
                    streams=self._streams,
                    more={"/api/v1/posture": self._posture},
                    prepare=self.metrics.prepare,
                    program="logreceiver",
                )
            )
            self.admin_address = server.address
            log.info("admin listening", address=server.address)
        await self._stack.enter_async_context(self._watching_certificates())

    def _fit_descriptors(self) -> None:
        """Fewer links than configured where the process may not have so many files open; the log has its share."""
        limit, listeners, most = descriptors.limit(), len(self._config.listener), self._max_pending
        wanted = OWN_DESCRIPTORS + listeners * most + self._max_links * 4 // 3
        if limit < wanted:
            self._max_pending = max(min(most, limit // (8 * listeners)), 1)
            left = limit - OWN_DESCRIPTORS - listeners * self._max_pending
            self._max_links = min(self._max_links, max(left * 3 // 4, 1))
            remedy = "raise the limit (ulimit -Hn, LimitNOFILE= of systemd), or lower limits.max_links"
            log.warning("few descriptors", limit=limit, wanted=wanted, max_links=self._max_links, remedy=remedy)

    def _party(self, settings: ListenerSettings) -> Party:
        return stacks.server(stacks.named(settings.modes, self._config.tls), self._config.tls)

    def _admin_address(self, settings: Admin) -> str:
        host, port = split_address(settings.address)
        return join_address(host, port + (self._worker or 0))

    async def _stop(self) -> None:
        self._stopping = True
        grace = self._config.stop_grace_seconds
        for session in self._live:
            session.go_away("the receiver is stopping", grace)
        deadline = asyncio.get_running_loop().time() + grace
        while self._live and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for session in list(self._live):
            session.end(Code.TIMEOUT, "the receiver is stopping")
        await self._stack.aclose()

    # -- links -------------------------------------------------------------------------------------------------

    async def _serve(self, link: Link) -> None:
        facts = link.facts
        identity = facts.identities[0] if facts.identities else ""
        self._shared.sparing.say(
            ("handshake complete", identity),
            lambda more: handshakes.log_complete(
                log.bind(peer=link.peer, identities=list(facts.identities)), facts, more=more
            ),
        )
        limits = self._config.limits
        session = Session(link, self._shared)
        if (
            self._stopping
            or len(self._live) >= self._max_links
            or self._links[identity] >= limits.max_links_per_identity
        ):
            await session.turn_away(Code.TOO_MANY_LINKS, "no room for another link")
            return
        self._live.add(session)
        self._links[identity] += 1
        try:
            await session.run()
        except Exception as error:  # the top of a link's task; such as too little memory
            log.exception("session failed", peer=link.peer, reason=f"{type(error).__name__}: {error}")
        finally:
            self._live.discard(session)
            self._links[identity] -= 1
            if not self._links[identity]:
                del self._links[identity]

    def _failed(self, peer: str, error: HandshakeFailed) -> None:
        self.metrics.failed_handshake(error.reason, role="receiver")
        self._shared.sparing.say(
            ("handshake failed", error.reason),
            lambda more: handshakes.log_failed(log.bind(peer=peer), error, more=more),
        )

    # -- certificates ------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching_certificates(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch_certificates())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch_certificates(self) -> None:
        seen = self._certificate_stamp()
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            if (now := self._certificate_stamp()) != seen:
                seen = now
                self.reload_certificates()

    def _certificate_stamp(self) -> tuple[float, ...]:
        """When each file of each certificate was written; empty while one of them is missing."""
        sections = self._config.tls.sections()
        with contextlib.suppress(OSError):
            return tuple(path.stat().st_mtime for each in sections for path in each.paths())
        return ()

    async def reload(self) -> None:
        """Called at SIGHUP."""
        self.reload_certificates()

    def reload_certificates(self) -> None:
        """Use the current files for new links; keep the old ones if peers would refuse these."""
        served = stacks.named(sorted(self._config.served_modes), self._config.tls)
        try:
            stacks.check(self._config.tls, served, accepting=True)
            parties = [self._party(settings) for settings in self._config.listener]
        except ConfigError as error:
            log.error(
                "certificate reload failed",
                reason=str(error),
                remedy="mend the files; the old certificate stays in use",
            )
            return
        for settings, listener, party in zip(self._config.listener, self.listeners, parties, strict=True):
            listener.replace(party)
            self.metrics.own_certificate(party.expires, user=settings.address, delegated=party.delegated_until)
        log.info("certificate reloaded")

    # -- for admin ---------------------------------------------------------------------------------------------

    def _ready(self) -> Mapping[str, str]:
        if self._stopping:
            return {"receiver": "stopping"}
        sink = self._shared.sink
        return {part: wrong for part, wrong in sink.health().items() if part == sink.name}

    def _streams(self) -> list[dict[str, Any]]:
        return status.rows(self._live, self.metrics)

    async def _posture(self) -> bytes:
        """Built on a thread: with thousands of accounts it takes long enough to delay batches."""
        posture = self._shared.posture
        open_links = [session.open_link() for session in self._live if session.guest is not None]
        make = functools.partial(report, posture.accounts, open_links, since=self._since, now=datetime.now(UTC))
        return await asyncio.to_thread(lambda: msgspec.json.encode(make(forgotten=posture.forgotten)))
