"""Hears what a link's forwarder says, at a pace that leaves time for everybody else, and within the memory for batches.

Batches are limited by the window, and questions about runs by their answers. Links whose identity sends more small
batches than its share, or batches that are read past, are read in turns with other links. What needs no answer of the
sink (PING, REPORT) has a pace of its own, far above what a forwarder ever needs: what is faster is taken in turns, too,
and much faster ends the link.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from logreceiver.links.shared import Shared
from logreceiver.links.storing import Storing
from streams.errors import Code, LinkRefused, ProtocolError, RemoteProtocolError
from streams.pace import Bucket
from streams.security.transport import GATHER_BYTES, Link
from streams.wire import messages as m
from streams.wire.connection import ReceiverConnection

IDLE_SECONDS = 40.0
"""A forwarder pings every 10 s when idle; one that stays silent for this long is gone."""

MESSAGES_PER_SECOND = 4.0
"""Other than batches and runs: a forwarder sends one PING a second, and a REPORT every ten."""
MESSAGES_IN_ADVANCE = 10.0
"""So many are taken at once; more of them in turns with other links."""
MOST_MESSAGES = 100.0
"""What a link may have in its buffers after it was not read for a while; more is a flood."""

CALM_READ_BYTES = 8 * 1024
"""What is read at a time while nothing larger is announced. Half of a TLS record: OpenSSL keeps room for what came at a
time, and a link may wait long for the memory that its first bytes announce."""
ON_THE_WAY_BYTES = GATHER_BYTES + 48 * 1024
"""What a batch takes while it comes, beside itself: as plaintext that gathers, and in OpenSSL."""
SPARE_BYTES = 1024
"""For the TLS records around what is announced."""
PING_SECONDS = 1.0
FRAME_SECONDS = 60.0
"""Within which a batch has to come, once there is memory for it: as long as forwarders wait for its answer."""
SLOW_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 1024
"""What it may not come slower than from SLOW_SECONDS on, while memory is scarce."""


class Hearing:
    """One link's messages on their way to those who act on them."""

    def __init__(
        self,
        link: Link,
        connection: ReceiverConnection,
        identity: str,
        shared: Shared,
        send: Callable[[m.Message], None],
    ) -> None:
        self._link, self._connection, self._identity = link, connection, identity
        self._turns, self._send = shared.turns, send
        self._admitted, self._admitted_at = 0, 0.0
        """What the frame under way has of the memory, and since when."""
        self._is_waiting = False
        """True while there is no memory for it."""
        self._pinged = self._ponged = 0
        now = time.monotonic()
        self._calm = Bucket(MESSAGES_PER_SECOND, MESSAGES_IN_ADVANCE, now)
        self._bearable = Bucket(MESSAGES_PER_SECOND, MOST_MESSAGES, now)

    async def read(self, storing: Storing) -> None:
        """Read nothing more from a forwarder that does not read our answers: its PINGs would fill the memory."""
        while True:
            await self._link.drain()
            if self._admitted:
                missing = self._connection.missing_bytes
                self._link.read_at_most(missing + SPARE_BYTES, inbox_bytes=missing)
                data = await self._link.receive(at_least=missing)
            else:  # nothing may gather that has not been announced, or is read past
                self._link.read_at_most(CALM_READ_BYTES, inbox_bytes=0)
                data = await self._link.receive()
            if not data:
                return
            now, is_ahead = time.monotonic(), False
            for event in self._connection.messages(data):
                admitted, self._admitted = self._admitted, 0  # that was for the first of these
                if isinstance(event, m.OpenRun | m.Batch | m.Overlong):
                    is_ahead = storing.put(event, now) or is_ahead
                else:
                    await self._take(event, storing)
                if admitted:  # not before the batch itself is counted: others wait for it
                    storing.memory.give(admitted)
            if (announced := self._connection.announced_bytes) and not self._admitted:
                size = announced + min(announced, ON_THE_WAY_BYTES)
                if not storing.memory.take_now(size):
                    await self._wait_for_memory(size, storing)
                self._admitted, self._admitted_at = size, time.monotonic()
            elif is_ahead or self._connection.reads_past:
                await self._wait_for_turn()

    async def _wait_for_memory(self, size: int, storing: Storing) -> None:
        """Until there is enough for what is announced. The forwarder hears that we are there, if not its own PINGs."""
        turn = asyncio.ensure_future(storing.memory.take(size))
        self._link.hold(True)
        self._is_waiting = True
        try:
            while not (await asyncio.wait({turn}, timeout=PING_SECONDS))[0]:
                await self._turns.take(self._identity)
                self._pinged += 1
                self._send(m.Ping(self._pinged))
        finally:
            turn.cancel()
            self._is_waiting = False
            self._link.hold(False)

    async def _wait_for_turn(self) -> None:
        """Nothing is decrypted before: that costs as much as the rest."""
        self._link.hold(True)
        try:
            await self._turns.take(self._identity)
        finally:
            self._link.hold(False)

    async def _take(self, event: m.Message, storing: Storing) -> None:
        """A message that needs no sink."""
        if isinstance(event, m.Error):
            raise LinkRefused(Code.parse(event.code), event.text)
        now = time.monotonic()
        if isinstance(event, m.Pong) and self._ponged < self._pinged:
            self._ponged += 1
            return
        if self._bearable.take(1, now):
            raise RemoteProtocolError(Code.TOO_FAST, f"more than {MESSAGES_PER_SECOND:g} messages a second")
        if self._calm.take(1, now):
            await self._turns.take(self._identity)
        if isinstance(event, m.Ping):
            self._send(m.Pong(event.token))
        elif isinstance(event, m.Report):
            storing.keep_report(event)

    async def watch(self, storing: Storing, ends: Sequence[asyncio.Future[Any]]) -> None:
        """Wait for one of the ends; raises ProtocolError if the forwarder stops sending or stops reading meanwhile.

        Silence must be seen twice: a busy receiver may look late, before it has read what already arrived.
        """
        looks = 0
        while not (await asyncio.wait(ends, timeout=IDLE_SECONDS / 4, return_when=asyncio.FIRST_COMPLETED))[0]:
            now = time.monotonic()
            self._check_pace(storing, now)
            looks = looks + 1 if now - self._link.heard_at >= IDLE_SECONDS and not self._is_waiting else 0
            if looks < 2:
                continue
            if self._link.held_up:
                raise ProtocolError(Code.TIMEOUT, "the forwarder does not read what it is sent")
            if storing.is_idle:  # otherwise its window may be full, and the sink is what it waits for
                raise ProtocolError(Code.TIMEOUT, "the forwarder fell silent")

    def _check_pace(self, storing: Storing, now: float) -> None:
        """Raises ProtocolError for a batch that keeps its memory and does not come."""
        if not self._admitted:
            return
        seconds = now - self._admitted_at
        come = self._connection.announced_bytes - self._connection.missing_bytes + self._link.inbox_bytes
        slow = storing.memory.budget.is_scarce and seconds >= SLOW_SECONDS and come < LEAST_BYTES_PER_SECOND * seconds
        if slow or seconds > FRAME_SECONDS:
            text = f"{come} of {self._connection.announced_bytes} bytes of a batch came within {seconds:.0f} s"
            raise RemoteProtocolError(Code.TIMEOUT, text)
