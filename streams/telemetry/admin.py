"""Admin HTTP: /metrics, /healthz, /readyz, /api/v1/streams. Read-only, and on the loopback unless told otherwise.

A forwarder also serves /api/v1/streams/NAME/batch-durations?since=COUNT: each batch duration after the first COUNT, for
who needs the values of one stretch of time and not percentiles of the last ones.

The program gives callables; they run on the event loop at each request, so they may read what the loop owns and must
not block. Health and readiness are reasons by name: none means well.

The port is open from the start; the HTTP server behind it is imported when somebody first connects: it costs more than
all else that a program imports (0.15 CPU-s, 15 MB), and many a host is never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.addresses import join_address, split_address
from streams.errors import PipelineError

if TYPE_CHECKING:
    from aiohttp import web

MAX_LINE_BYTES = 4096
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 1024
CLOSE_SECONDS = 1.0
MOST_DIGITS = 20

Reasons = Callable[[], Mapping[str, str]]
Rows = Callable[[], Sequence[Mapping[str, Any]]]
Answers = Mapping[str, Callable[[], Awaitable[bytes]]]
Durations = Callable[[str, int], Mapping[str, Any] | None]
"""Of a stream, after so many; None for a stream that has none."""


class AdminUnavailable(PipelineError):
    """The admin address cannot be listened on."""


@dataclass(frozen=True)
class Server:
    """A running server; `address` has the port that the system chose where the configured one was 0."""

    address: str


@contextlib.asynccontextmanager
async def serve(
    address: str,
    registry: CollectorRegistry,
    *,
    health: Reasons,
    ready: Reasons,
    streams: Rows,
    more: Answers | None = None,
    durations: Durations | None = None,
) -> AsyncIterator[Server]:
    """Serve until the block is left; `more` are further paths, answered with JSON. AdminUnavailable."""
    with _listen(address) as sock:
        server = asyncio.create_task(
            _answer(sock, lambda: _application(registry, health, ready, streams, more or {}, durations))
        )
        try:
            yield Server(join_address(*sock.getsockname()[:2]))
        finally:
            server.cancel()
            await asyncio.wait([server])


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise AdminUnavailable(f"admin.address {address}: cannot listen there: {error.strerror or error}") from error
    listening.setblocking(False)
    return listening


async def _answer(sock: socket.socket, application: Callable[[], web.Application]) -> None:
    """Serve from the first connection on, until cancelled."""
    await _readable(sock)
    await asyncio.to_thread(importlib.import_module, "aiohttp.web")  # long enough to hold up batches
    from aiohttp import web

    runner = web.AppRunner(
        application(),
        access_log=None,
        handle_signals=False,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _readable(sock: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _application(
    registry: CollectorRegistry,
    health: Reasons,
    ready: Reasons,
    streams: Rows,
    more: Answers,
    durations: Durations | None,
) -> web.Application:
    from aiohttp import web

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return verdict(health())

    async def readyz(_: web.Request) -> web.Response:
        return verdict(ready())

    async def list_streams(_: web.Request) -> web.Response:
        return web.json_response({"streams": list(streams())})

    def answering(tell: Callable[[], Awaitable[bytes]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=await tell(), content_type="application/json")

        return answer

    async def list_durations(request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < MOST_DIGITS):
            raise web.HTTPBadRequest(text="since: a count of batches\n")
        found = durations(request.match_info["stream"], int(since)) if durations is not None else None
        if found is None:
            raise web.HTTPNotFound(text="no batch of such a stream was acknowledged\n")
        return web.json_response(found)

    def verdict(reasons: Mapping[str, str]) -> web.Response:
        if reasons:
            return web.json_response({"status": "unavailable", "reasons": dict(reasons)}, status=503)
        return web.json_response({"status": "ok"})

    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/api/v1/streams", list_streams),
            *(web.get(path, answering(tell)) for path, tell in more.items()),
            web.get("/api/v1/streams/{stream}/batch-durations", list_durations),
        ]
    )
    return application
