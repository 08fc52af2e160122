"""Listeners of the syslog source: one for each address, for as long as a stream is configured there.

They outlive pipelines, so that a restart or a reload of a stream neither blocks nor loses what comes meanwhile. An
address that cannot be used is tried again until it can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import structlog

from logfwd.sources.front import Front
from logfwd.sources.syslog.connections import Connections
from logfwd.sources.syslog.counts import Counters, Losses
from logfwd.sources.syslog.datagrams import Datagrams
from logfwd.sources.syslog.inbox import inbox_of
from logfwd.sources.syslog.settings import Served
from streams import tasks
from streams.addresses import is_local
from streams.errors import ConfigError, LinkError

RETRY_SECONDS = 2.0
"""Pause between attempts to listen on an address that is taken."""

log = structlog.get_logger("logfwd.sources.syslog")

REMEDY = "free the address, mend the files, or configure another address"

Place = tuple[str, str, str]
"""Stream, transport and address."""


class SyslogServer:
    """All syslog listeners of one forwarder."""

    def __init__(self, front: Front, counters: Counters) -> None:
        self._front, self._counters = front, counters
        self._doors: dict[Place, _Door] = {}

    async def serve(self, streams: Sequence[Served]) -> None:
        """Serve these streams from now on: open addresses that are new, close those that are not configured."""
        wanted: dict[Place, Served] = {
            (each.stream, transport, address): each
            for each in streams
            for transport, address, _ in each.settings.addresses()
        }
        for each in streams:
            inbox = inbox_of(self._front, each.stream)
            inbox.max_bytes, inbox.fields = each.settings.max_buffer_bytes, msgspec.json.encode(each.defaults)[1:-1]
        for place in set(self._doors) - set(wanted):
            await self._doors.pop(place).stop()
        for place, served in wanted.items():
            if place in self._doors:
                self._doors[place].use(served)
            else:
                self._doors[place] = door = self._door(place, served)
                await door.open()

    def read_files(self) -> None:
        """Show the certificates that the files have now to new clients."""
        for door in self._doors.values():
            door.read_files()

    def _door(self, place: Place, served: Served) -> _Door:
        stream, transport, address = place
        inbox, losses = inbox_of(self._front, stream), Losses(stream, self._counters)
        if transport in ("udp", "unix"):
            return _Door(
                place, served, Datagrams(transport, address, served, inbox, losses, self._front.turns.must_rest)
            )
        return _Door(place, served, Connections(transport, address, served, inbox, losses, self._front.turns))

    def address(self, stream: str, transport: str) -> str:
        """Where a stream's first listener of a transport is, with the real port."""
        return next(door.listener.address for place, door in self._doors.items() if place[:2] == (stream, transport))

    def troubles(self) -> Mapping[str, str]:
        """Why an address cannot be listened on."""
        doors = self._doors.items()
        return {f"{stream}/{address}": door.trouble for (stream, _, address), door in doors if door.trouble}

    async def stop(self) -> None:
        """Take what has come, and nothing more."""
        await asyncio.gather(*(door.stop() for door in self._doors.values()))


class _Door:
    """A listener that is opened as soon as that is possible."""

    def __init__(self, place: Place, served: Served, listener: Datagrams | Connections) -> None:
        self._place, self._served, self.listener = place, served, listener
        self._opening: asyncio.Task[None] | None = None
        self.trouble = ""

    async def open(self) -> None:
        """Listen; if that is not possible now, keep trying."""
        _, transport, address = self._place
        if transport in ("udp", "tcp") and not is_local(address):
            log.warning(
                "insecure listener",
                address=address,
                reason="insecure = true: anybody on the network can read and send messages",
                remedy="use tcp_tls, or listen on 127.0.0.1",
            )
        if not await self._try_to_open():
            self._opening = tasks.forever(f"listener {address}", self._keep_trying)

    async def _try_to_open(self) -> bool:
        stream, transport, _ = self._place
        try:
            await self.listener.open()
        except (OSError, LinkError, ConfigError) as error:
            if not self.trouble:
                self._log_failure(error)
            self.trouble = str(error)
            return False
        self.trouble = ""
        log.info("syslog listening", stream=stream, transport=transport, address=self.listener.address)
        return True

    def _log_failure(self, error: Exception) -> None:
        stream, transport, address = self._place
        log.error(
            "syslog listener failed",
            stream=stream,
            transport=transport,
            address=address,
            reason=str(error),
            remedy=REMEDY,
        )

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if await self._try_to_open():
                return

    def use(self, served: Served) -> None:
        """Go on with other settings, as far as they can be used."""
        self._served = served
        self.read_files()

    def read_files(self) -> None:
        """Go on with what the files hold now; the old certificate stays if the new one cannot be used."""
        try:
            self.listener.use(self._served)
        except ConfigError as error:
            remedy = "mend the files; the old certificate stays in use"
            log.error("certificate reload failed", reason=str(error), remedy=remedy)
        except OSError as error:
            self._log_failure(error)

    async def stop(self) -> None:
        """Take what has come, and nothing more."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self.listener.stop()
