"""Admin HTTP: /metrics, /healthz, /readyz, /api/v1/streams, and the live page that draws it at /.

Read-only, and on the loopback interface unless configured otherwise. There, the `Host` header must name the loopback
too: otherwise any web page could let a name of its own resolve to 127.0.0.1 and read what its visitor's programs serve
(DNS rebinding). The pages run no script but their own and load nothing from other hosts.

A forwarder also serves /api/v1/streams/NAME/batch-durations?since=COUNT: every batch duration after the first COUNT,
for callers that need the values of a given period instead of recent percentiles.

The program passes callables; they run on the event loop at each request, so they may read what the loop owns and must
not block. /readyz answers 503 while there are reasons, by name, why the program is not ready; /healthz shows only that
the loop turns.

The port is open from the start; the HTTP server is imported at the first connection, because it costs more than all
other imports of a program together (0.15 CPU-s, 15 MB) and many hosts are never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.addresses import join_address, split_address
from streams.descriptors import readable
from streams.errors import PipelineError

if TYPE_CHECKING:
    from aiohttp import web

MAX_LINE_BYTES = 4096
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 1024
CLOSE_SECONDS = 1.0
MOST_DIGITS = 20
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/measures.js": ("measures.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""The files of the live page, and their types, which must not depend on the host's table of file names."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Reasons = Callable[[], Mapping[str, str]]
Rows = Callable[[], Sequence[Mapping[str, Any]]]
Answers = Mapping[str, Callable[[], Awaitable[bytes]]]
"""Further paths, answered with JSON."""
Durations = Callable[[str, int], Mapping[str, Any] | None]
"""(stream, count) → the durations after the first `count`; None for a stream that has none."""


@dataclass(frozen=True)
class Status:
    """The callables that a program answers with."""

    ready: Reasons
    streams: Rows
    durations: Durations | None = None
    more: Answers = field(default_factory=dict)


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
    ready: Reasons,
    streams: Rows,
    durations: Durations | None = None,
    more: Answers | None = None,
    program: str = "",
) -> AsyncIterator[Server]:
    """Serve until the block is left; raises AdminUnavailable."""
    started = time.time()
    status = Status(ready, streams, durations, more or {})
    with _listen(address) as sock:
        bound_host, port = sock.getsockname()[:2]
        local_host = split_address(address)[0] if ip_address(bound_host).is_loopback else None

        def application() -> web.Application:
            about = {"program": program, "version": importlib.metadata.version("logfwd"), "started": round(started, 3)}
            return _application(registry, status, about, local_host)

        server = asyncio.create_task(_answer(sock, application))
        try:
            yield Server(join_address(bound_host, port))
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
    await readable(sock.fileno())
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


def _meant_for_loopback(host_header: str, configured: str) -> bool:
    """Whether a Host header names this machine's loopback; the port may be a forwarded one, so it is ignored."""
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
        return host in ("localhost", configured.lower()) or ip_address(host).is_loopback
    except ValueError:
        return False


def _application(
    registry: CollectorRegistry, status: Status, about: Mapping[str, Any], local_host: str | None
) -> web.Application:
    from aiohttp import web

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> web.StreamResponse:
        if local_host is not None and not _meant_for_loopback(request.headers.get("Host", ""), local_host):
            raise web.HTTPMisdirectedRequest(text="this address answers only to localhost\n")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def harden(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    async def page(request: web.Request) -> web.FileResponse:
        name, kind = PAGE[request.path]
        return web.FileResponse(
            Path(__file__).parent / "page" / name, headers={"Content-Type": f"{kind}; charset=utf-8"}
        )

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return verdict({})  # it shows only that the loop turns

    async def readyz(_: web.Request) -> web.Response:
        return verdict(status.ready())

    async def list_streams(_: web.Request) -> web.Response:
        now = round(time.time(), 3)
        return web.json_response(
            {**about, "now": now, "trouble": dict(status.ready()), "streams": list(status.streams())}
        )

    async def list_durations(request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < MOST_DIGITS):
            raise web.HTTPBadRequest(text="since must be a number of batches, such as 0\n")
        found = status.durations(request.match_info["stream"], int(since)) if status.durations is not None else None
        if found is None:
            raise web.HTTPNotFound(text="no stream of this name has had a batch acknowledged\n")
        return web.json_response(found)

    def answering(make: Callable[[], Awaitable[bytes]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=await make(), content_type="application/json")

        return answer

    def verdict(reasons: Mapping[str, str]) -> web.Response:
        if reasons:
            return web.json_response({"status": "unavailable", "reasons": dict(reasons)}, status=503)
        return web.json_response({"status": "ok"})

    application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[guarded])
    application.on_response_prepare.append(harden)
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/api/v1/streams", list_streams),
            web.get("/api/v1/streams/{stream}/batch-durations", list_durations),
            *(web.get(path, answering(make)) for path, make in status.more.items()),
            *(web.get(path, page) for path in PAGE),
        ]
    )
    return application
