"""The receiver as a service: one sink, its listeners, their links; starts, reloads, stops.

A stop is announced to every forwarder (GOAWAY), so that batches under way are answered and no new ones arrive; batches
that are not answered within the grace are sent again to another receiver. The receiver keeps no state that a kill could
lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from logreceiver import status
from logreceiver.config import Admin, ReceiverConfig
from logreceiver.ledger.writer import Ledger
from logreceiver.links.grants import Grants
from logreceiver.links.session import CUT_SECONDS, Session
from logreceiver.links.shared import Shared
from logreceiver.listeners import Listeners
from logreceiver.metrics import ReceiverMetrics
from logreceiver.oversight import overseeing
from logreceiver.posture import Share, report
from logreceiver.reloading import Load, Reloading, Report
from logreceiver.room import room_for
from logreceiver.sinks.make import make_sink
from streams import calm, handed, tasks
from streams.addresses import join_address, split_address
from streams.config.changes import digest
from streams.config.units import KIB
from streams.errors import Code, HandshakeFailed
from streams.security import handshakes
from streams.security.listener import Listener
from streams.security.revocation import Revoked
from streams.security.transport import Link
from streams.telemetry import admin
from streams.telemetry.metrics import CollectorRegistry
from streams.watching import stamps_of

CERTIFICATE_CHECK_SECONDS = 5.0
LINK_BYTES = 64 * KIB
"""What an idle link takes."""
STOPPING = "the receiver is stopping"
log = structlog.get_logger("logreceiver")


class Service:
    """`async with Service(config)`: ready when entered, stopped cleanly when left.

    `worker`: its number among several processes that share the listeners' ports.
    """

    def __init__(self, config: ReceiverConfig, *, worker: int | None = None) -> None:
        self.config = config
        """The configuration in use."""
        self._worker = worker
        self.registry = CollectorRegistry()
        self.metrics = ReceiverMetrics(self.registry)
        self.metrics.config_is(digest(config))
        self.metrics.on_scrape(lambda: self.metrics.count_task_failures(tasks.failures()))
        self.metrics.on_scrape(lambda: self.metrics.show_reasons(len(self._ready()), len(self._degraded())))
        self._links: Counter[str] = Counter()
        """Open links by identity; an identity without one has no entry."""
        self._live: dict[Session, Listener] = {}
        """Sessions, each with the listener that its link came by."""
        self._stack = contextlib.AsyncExitStack()
        """Closes listeners, ledger and sink, in the reverse of the order in which they were opened."""
        self._ended_links = 0
        self._max_links = config.limits.max_links
        self._stopping = False
        self._since = datetime.now(UTC)
        """Since when the posture is counted."""
        self.admin_address = ""

    @property
    def listeners(self) -> list[Listener]:
        """Those in use, in the order of the configuration."""
        return self._listeners.used

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
        config = self.config
        stamps = stamps_of(config.certificate_files)
        self._make_room()
        grants = Grants.load(config.grant_key_file)
        ledger_topic = config.ledger.topic if config.ledger is not None else ""
        sink = make_sink(config.sink, ledger_topic=ledger_topic, witness=self.metrics)
        self._stack.push_async_callback(sink.close)
        await sink.start()
        self._shared = Shared(config, sink, grants, self.metrics)
        self._shared.revoked = Revoked.load(config.crl, config.tls.sections())
        self.metrics.revocation_lists(self._shared.revoked.next_update)
        self._listeners = Listeners(
            self._serve,
            self._failed,
            self.metrics,
            turns=self._shared.turns,
            reuse_port=self._worker is not None,
        )
        self._reloading = Reloading(self._shared, self._listeners, self._live.items, self.metrics, stamps)
        self._stack.push_async_callback(self._reloading.close)
        if config.ledger is not None:
            self._shared.ledger = Ledger(config.ledger.topic, sink, self.metrics)
            self._shared.ledger.start()
        self._stack.push_async_callback(self._listeners.close)
        change = self._listeners.plan(config)
        await self._listeners.open(change)
        self._listeners.commit(change, grace_seconds=0.0)
        _drop_unused_sockets()
        if config.admin is not None:
            server = await self._stack.enter_async_context(
                admin.serve(
                    self._admin_address(config.admin),
                    self.registry,
                    ready=self._ready,
                    streams=self._streams,
                    more={"/api/v1/posture": self._posture},
                    prepare=self.metrics.prepare,
                    degraded=self._degraded,
                    further=self._further,
                    program="logreceiver",
                    hosts=config.admin.hosts,
                )
            )
            self.admin_address = server.address
            log.info("admin listening", address=server.address)
        await self._stack.enter_async_context(tasks.running("certificates", self._watch_certificates))
        await self._stack.enter_async_context(tasks.running("heap", lambda: calm.give_back(self._worked_bytes)))
        await self._stack.enter_async_context(overseeing(lambda: self._live, self._shared, self._reloading.judge))

    def _make_room(self) -> None:
        room = room_for(self.config)
        self._max_links = room.max_links
        if room.limit < room.wanted:
            remedy = "raise the limit (ulimit -Hn, LimitNOFILE= of systemd), or lower limits.max_links"
            log.warning(
                "few descriptors", limit=room.limit, wanted=room.wanted, max_links=room.max_links, remedy=remedy
            )

    def _admin_address(self, settings: Admin) -> str:
        host, port = split_address(settings.address)
        return join_address(host, port + (self._worker or 0))

    async def _stop(self) -> None:
        self._stopping = True
        self._reloading.stop()
        for listener in self.listeners:
            if listener.outlives_us:
                listener.stop()
        grace = self.config.stop_grace_seconds
        for session in self._live:
            session.go_away(STOPPING, grace)
        deadline = asyncio.get_running_loop().time() + grace
        while self._live and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for session in list(self._live):
            session.end(Code.TIMEOUT, STOPPING)
        await self._stack.aclose()

    def _worked_bytes(self) -> int:
        return self._shared.budget.total_bytes + LINK_BYTES * self._ended_links

    # -- links -------------------------------------------------------------------------------------------------

    async def _serve(self, link: Link, listener: Listener) -> None:
        facts = link.facts
        identity = facts.identities[0] if facts.identities else ""
        self._shared.sparing.say(
            ("handshake complete", identity),
            lambda more: handshakes.log_complete(
                log.bind(peer=link.peer, identities=list(facts.identities)), facts, more=more
            ),
        )
        limits = self.config.limits
        session = Session(link, self._shared)
        if verdict := session.judge(self.config, self._shared.revoked):
            await session.turn_away(verdict.code, verdict.text)
            return
        if self._stopping:
            await session.turn_away(Code.TIMEOUT, STOPPING)
            return
        if len(self._live) >= self._max_links or self._links[identity] >= limits.max_links_per_identity:
            await session.turn_away(Code.TOO_MANY_LINKS, "no room for another link")
            return
        self._live[session] = listener
        self._links[identity] += 1
        try:
            await session.run()
        except Exception as error:  # the top of a link's task; such as too little memory
            log.exception("session failed", peer=link.peer, reason=f"{type(error).__name__}: {error}")
        finally:
            del self._live[session]
            self._ended_links += 1
            self._links[identity] -= 1
            if not self._links[identity]:
                del self._links[identity]

    def _failed(self, peer: str, error: HandshakeFailed, address: str, modes: Sequence[str]) -> None:
        self.metrics.failed_handshake(error.reason, role="receiver")
        where = log.bind(peer=peer, listener=address, modes=list(modes))
        self._shared.sparing.say(
            ("handshake failed", error.reason),
            lambda more: handshakes.log_failed(where, error, more=more),
        )

    # -- certificates ------------------------------------------------------------------------------------------

    async def _watch_certificates(self) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            await self.reload_certificates()

    async def reload(self, load: Load, *, check: bool = False, confirm: str = "") -> Report:
        """Load a configuration and take it; see reloading.py. At SIGHUP, or as an operator asks."""
        report = await self.prepare(load, check=check, confirm=confirm)
        return report if check or report.outcome == "refused" else await self.take()

    async def prepare(self, load: Load, *, check: bool = False, confirm: str = "") -> Report:
        """The first half of a reload, which may be refused; `take` or `drop` has to follow."""
        return await self._reloading.prepare(load, check=check, confirm=confirm)

    async def take(self) -> Report:
        """The second half: take what was prepared. By its end, the sink gets nothing more of those it shuts out."""
        report, shut_out = await self._reloading.take()
        if report.outcome == "taken":
            self.config = self._shared.config
            self.metrics.config_is(digest(self.config))
            self._make_room()
            await _until_served(shut_out)
        return report

    async def drop(self, reason: str, remedy: str) -> Report:
        """The second half: keep what is in use."""
        return await self._reloading.drop(reason, remedy)

    async def reload_certificates(self) -> None:
        """Use files that have changed for new links; keep the old ones if peers would refuse these."""
        await self._reloading.reload_certificates()

    # -- for admin ---------------------------------------------------------------------------------------------

    def _ready(self) -> Mapping[str, str]:
        if self._stopping:
            return {"receiver": "stopping"}
        sink = self._shared.sink
        return {part: wrong for part, wrong in sink.health().items() if part == sink.name}

    def _degraded(self) -> Mapping[str, str]:
        sink = self._shared.sink
        found = {part: wrong for part, wrong in sink.health().items() if part != sink.name}
        found |= {**tasks.troubles(), **self._reloading.troubles()}
        if self._shared.ledger is not None and self._shared.ledger.trouble:
            found["ledger"] = f"cannot be written, streams are not held up: {self._shared.ledger.trouble}"
        due = self._shared.revoked.next_update
        if due is not None and due <= datetime.now(UTC):
            found["crl"] = f"a revocation list was due on {due:%Y-%m-%d %H:%M} UTC; it stays in force"
        return found

    def _streams(self) -> list[dict[str, Any]]:
        return status.rows(self._live, self.metrics)

    def _sink_shares(self) -> list[Share]:
        return self.metrics.sink_connections.shares(time.monotonic())

    def _further(self) -> dict[str, Any]:
        sink = msgspec.to_builtins(self._sink_shares())
        return {"config": self.metrics.config(), "certificates": self.metrics.certificates(), "sink": sink}

    async def status(self) -> dict[str, Any]:
        """How it does, for an operator."""
        trouble = {**self._degraded(), **self._ready()}
        return {"now": time.time(), "trouble": trouble, "streams": self._streams()}

    async def links(self) -> dict[str, Any]:
        """Every link that is open and was welcomed."""
        return {"links": await status.links(self._live)}

    async def _posture(self) -> bytes:
        """Built on a thread: with thousands of accounts it takes long enough to delay batches."""
        posture = self._shared.posture
        open_links = [session.open_link() for session in self._live if session.guest is not None]
        sink = self._sink_shares()
        now = datetime.now(UTC)
        make = functools.partial(report, posture.accounts, open_links, since=self._since, now=now, sink=sink)
        return await asyncio.to_thread(lambda: msgspec.json.encode(make(forgotten=posture.forgotten)))


def _drop_unused_sockets() -> None:
    for name, address in handed.drop_rest():
        remedy = "give it the address of a listener in the configuration, as ListenStream="
        log.warning("socket not used", name=name, address=address, remedy=remedy)


async def _until_served(sessions: Iterable[Session]) -> None:
    """Wait for the ends of links that are shut out: each is cut soon, whatever the sink does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * CUT_SECONDS):
            for session in sessions:
                await session.served.wait()
