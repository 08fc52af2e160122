"""The receiver's open addresses: opened at the start, then opened, changed and closed by reloads.

A change is made in three steps: `plan` loads every certificate, `open` listens on new addresses, and both may fail;
`commit` puts all of it into use, and cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network

import msgspec
import structlog

from logreceiver.config import Limits, ReceiverConfig
from logreceiver.config import Listener as Settings
from logreceiver.metrics import ReceiverMetrics
from logreceiver.room import room_for
from streams.errors import HandshakeFailed
from streams.security import stacks
from streams.security.endpoint import Party
from streams.security.listener import Listener
from streams.security.transport import Link
from streams.turns import Turns

Serve = Callable[[Link, Listener], Awaitable[None]]
Failed = Callable[[str, HandshakeFailed, str, Sequence[str]], None]
"""Gets the peer, what went wrong, and the address and the modes of the listener."""

DEFAULTS = Limits()
INBOX_BYTES = 256 * 1024
"""What a link may have received beyond what it works on."""

log = structlog.get_logger("logreceiver")


class Door(msgspec.Struct, eq=False):
    """An address, and what listens there."""

    settings: Settings
    party: Party
    listener: Listener
    is_open: bool


class Change(msgspec.Struct):
    """The listeners of another configuration."""

    doors: list[Door]
    handshake_seconds: float
    max_handshakes: int
    opened: list[Listener] = []

    def limit(self, door: Door) -> None:
        """Use the bounds of this configuration."""
        settings = door.settings
        door.listener.limit(
            handshake_timeout=self.handshake_seconds,
            max_pending=self.max_handshakes,
            trusted=[ip_network(each) for each in settings.trusted_sources],
            proxies=None if settings.proxy_from is None else [ip_network(each) for each in settings.proxy_from],
        )


class Listeners:
    """Listens on the addresses of a configuration; `serve` gets every new link and the listener that it came by."""

    def __init__(
        self, serve: Serve, failed: Failed, metrics: ReceiverMetrics, *, turns: Turns, reuse_port: bool
    ) -> None:
        self._serve, self._failed, self._metrics, self._turns = serve, failed, metrics, turns
        self._reuse_port = reuse_port
        self._doors: list[Door] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def used(self) -> list[Listener]:
        """The listeners in use, in the order of the configuration."""
        return [door.listener for door in self._doors]

    def plan(self, config: ReceiverConfig) -> Change:
        """What a configuration wants. ConfigError for files that cannot be used."""
        present = dict(zip(_keys(door.settings for door in self._doors), self._doors, strict=True))
        doors = []
        for key, settings in zip(_keys(config.listener), config.listener, strict=True):
            party = stacks.server(stacks.named(settings.modes, config.tls), config.tls)
            known = present.get(key)
            listener = known.listener if known is not None else self._listener(party)
            doors.append(Door(settings, party, listener, known is not None))
        return Change(doors, config.limits.handshake_seconds, room_for(config).max_handshakes)

    async def open(self, change: Change) -> None:
        """Listen on the addresses that are new; LinkError if that is not possible, and then on none of them."""
        try:
            for door in change.doors:
                if not door.is_open:
                    change.limit(door)
                    await door.listener.start(door.settings.address, reuse_port=self._reuse_port)
                    change.opened.append(door.listener)
        except BaseException:
            await self.abandon(change)
            raise

    async def abandon(self, change: Change) -> None:
        """Close again what was opened for a change that is not made."""
        for listener in change.opened:
            await listener.close()

    def leaving(self, change: Change) -> set[Listener]:
        """The listeners whose links have to go: those that are closed, or that serve other modes then."""
        after = {door.listener: door.settings.modes for door in change.doors}
        return {door.listener for door in self._doors if after.get(door.listener) != door.settings.modes}

    def commit(self, change: Change, *, grace_seconds: float) -> None:
        """Use it for new links. Links of a listener that is closed are cut after the grace."""
        leaving = self.leaving(change)
        before, self._doors = self._doors, change.doors
        for door in self._doors:
            door.listener.replace(door.party, end_handshakes=door.listener in leaving)
            change.limit(door)
            expires, delegated = door.party.expires, door.party.delegated_until
            self._metrics.own_certificate(expires, user=door.settings.address, delegated=delegated)
            if not door.is_open:
                door.is_open = True
                log.info("listening", address=door.listener.address, modes=list(door.settings.modes))
        for door in before:
            if door.listener not in self.used:
                log.info("no longer listening", address=door.listener.address)
                self._close_later(door.listener, grace_seconds)
        addresses = {door.settings.address for door in self._doors}
        self._metrics.forget_certificates({door.settings.address for door in before} - addresses)

    async def close(self) -> None:
        """Close everything; links that are left are cut."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for listener in reversed(self.used):
            await listener.close()

    def _listener(self, party: Party) -> Listener:
        async def serve(link: Link) -> None:
            await self._serve(link, listener)

        def failed(peer: str, error: HandshakeFailed) -> None:
            modes = next((door.settings.modes for door in self._doors if door.listener is listener), ())
            self._failed(peer, error, listener.address, modes)

        listener = Listener(
            party,
            serve,
            failed,
            handshake_timeout=DEFAULTS.handshake_seconds,  # until it is opened
            max_pending=DEFAULTS.max_handshakes,
            on_probe=self._metrics.probes.inc,
            turns=self._turns,
            inbox_bytes=INBOX_BYTES,
        )
        return listener

    def _close_later(self, listener: Listener, seconds: float) -> None:
        listener.stop()

        async def close() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
            await listener.close()

        task = asyncio.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _keys(settings: Iterable[Settings]) -> Iterator[tuple[str, int]]:
    """The address of each, and a number: several may leave the port to the system."""
    seen: Counter[str] = Counter()
    for each in settings:
        yield each.address, seen[each.address]
        seen[each.address] += 1
