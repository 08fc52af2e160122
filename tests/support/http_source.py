"""The http source on a front without a forwarder: its listener, and a client in the same event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from logfwd.intake import jsonlines
from logfwd.metrics import ForwarderMetrics
from logfwd.sources.front import Front
from logfwd.sources.http.server import HttpServer
from logfwd.sources.http.settings import HttpSource, Served
from streams.telemetry.metrics import CollectorRegistry
from tests.support.http_clients import NDJSON, Reply, answer


def count_invalid(block: bytes, ends: Sequence[int] | None, max_record_bytes: int) -> int:
    return jsonlines.split(block, invalid="drop", max_record_bytes=max_record_bytes, ends=ends).invalid


class Listening:
    """A Unix socket at which stream "s" takes requests."""

    def __init__(self, front: Front, directory: Path, *, block_bytes: int) -> None:
        self._path = directory / "in.sock"
        self._server = HttpServer(front, ForwarderMetrics(CollectorRegistry()), count_invalid)
        self._served = Served("s", HttpSource(address=f"unix:{self._path}"), 1000, block_bytes, False)
        self._opened = asyncio.Lock()

    async def open(self) -> None:
        """Listen, if it does not yet."""
        async with self._opened:
            if not self._server.addresses:
                await self._server.serve([self._served])

    async def post(self, body: bytes, key: str = "") -> Reply | None:
        """One request on a connection of its own; None if that is closed without an answer."""
        await self.open()
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        headers = f"Host: h\r\nContent-Type: {NDJSON}\r\nContent-Length: {len(body)}\r\n"
        if key:
            headers += f"Idempotency-Key: {key}\r\n"
        try:
            writer.write(f"POST /ingest/s HTTP/1.1\r\n{headers}\r\n".encode() + body)
            return await answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        self._server.stop()
        await self._server.close()
