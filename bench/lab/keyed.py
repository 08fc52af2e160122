"""Clients that send one-record requests, each with an idempotency key of its own, at a rate that does not wait.

The load is open loop: request k is due at k / rate, whether or not the answers before it have come, and its time counts
from then. Every connection has one request at a time, so a forwarder that is slower than the rate shows in the times.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import NamedTuple, cast

from streams.addresses import split_address

LATE_SECONDS = 60.0
"""How long the last answers may take."""
TICK_SECONDS = 0.002
"""How often requests that are due are sent."""


class Answered(NamedTuple):
    """Answers with status 200: how many, and for each how long it took from when its request was due."""

    seconds: float
    milliseconds: list[float]
    refused: int
    """Other answers, and requests without one."""
    unsent: int
    """Requests that were due and found no connection free before the time was up."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.milliseconds) / self.seconds


def request_of(stream: str, number: int, key: bytes, record_bytes: int) -> bytes:
    """One request with one record."""
    record = b'{"n":%d,"path":"/index.html","padding":"' % number
    record += b"x" * max(record_bytes - len(record) - 2, 0) + b'"}'
    head = (
        b"POST /ingest/%b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-ndjson\r\n"
        b"Idempotency-Key: %b\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (stream.encode(), key, len(record)) + record


class _Connection(asyncio.Protocol):
    """One keep-alive connection; `clients` hears of each answer."""

    def __init__(self, clients: Clients) -> None:
        self._clients, self.due = clients, 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        """Send one request; the answer before must have come."""
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):  # the answers are small: each comes in one piece
            self._clients.answered(self, ok=data.startswith(b"HTTP/1.1 200 "))

    def connection_lost(self, error: Exception | None) -> None:
        self._clients.lost()

    def close(self) -> None:
        self._transport.close()


class Clients:
    """`connections` clients of one stream that share a load."""

    def __init__(self, address: str, stream: str, *, connections: int, record_bytes: int) -> None:
        self._address, self._stream = address, stream
        self._connections, self._record_bytes = connections, record_bytes
        self._free: deque[_Connection] = deque()
        self._milliseconds: list[float] = []
        self._refused = self._lost = 0

    def answered(self, connection: _Connection, *, ok: bool) -> None:
        """A connection has its answer."""
        if ok:
            self._milliseconds.append((time.perf_counter() - connection.due) * 1e3)
        else:
            self._refused += 1
        self._free.append(connection)

    def lost(self) -> None:
        """A connection has ended."""
        self._lost += 1

    async def run(self, per_second: float, seconds: float) -> Answered:
        """Send the load. Raises OSError if there is nobody at the address."""
        loop, place = asyncio.get_running_loop(), self._address.removeprefix("unix:")
        for _ in range(self._connections):
            if self._address.startswith("unix:"):
                _, made = await loop.create_unix_connection(lambda: _Connection(self), place)
            else:
                _, made = await loop.create_connection(lambda: _Connection(self), *split_address(place))
            self._free.append(made)
        everyone, keys = list(self._free), os.urandom(8).hex()
        started, sent, count = time.perf_counter(), 0, int(per_second * seconds)
        while time.perf_counter() - started < seconds and self._lost < self._connections:
            due = min(int((time.perf_counter() - started) * per_second) + 1, count)
            while sent < due and self._free:
                request = request_of(self._stream, sent, b"%b-%d" % (keys.encode(), sent), self._record_bytes)
                self._free.popleft().send(request, started + sent / per_second)
                sent += 1
            await asyncio.sleep(TICK_SECONDS)
        deadline = time.perf_counter() + LATE_SECONDS
        while len(self._free) + self._lost < self._connections and time.perf_counter() < deadline:
            await asyncio.sleep(TICK_SECONDS)
        passed = time.perf_counter() - started
        for each in everyone:
            each.close()
        return Answered(passed, self._milliseconds, sent - len(self._milliseconds), count - sent)
