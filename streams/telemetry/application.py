"""What the admin port answers, path by path.

Imported at the first connection, because aiohttp is expensive (admin.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from streams.telemetry.adminthread import Loop
from streams.telemetry.hosts import Hosts

MAX_BODY_BYTES = 1024
MOST_DIGITS = 20
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/measures.js": ("measures.js", "text/javascript"),
    "/overview.js": ("overview.js", "text/javascript"),
    "/onclick.js": ("onclick.js", "text/javascript"),
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
Fields = Callable[[], Mapping[str, Any]]
Answers = Mapping[str, Callable[[], Awaitable[bytes]]]
"""Further paths, answered with JSON."""
Durations = Callable[[str, int], Mapping[str, Any] | None]
"""(stream, count) → the durations after the first `count`; None for a stream that has none."""

Source = Callable[[str], Mapping[str, Any] | None]
"""What a stream reads; None for one that does not run."""


class Status(msgspec.Struct, frozen=True):
    """The callables that a program answers with, and the loop that they are called on."""

    loop: Loop
    ready: Reasons
    streams: Rows
    durations: Durations | None = None
    more: Answers = {}
    prepare: Callable[[], None] = lambda: None
    degraded: Reasons = dict
    further: Fields = dict
    source: Source | None = None


def make(registry: CollectorRegistry, status: Status, about: Mapping[str, Any], hosts: Hosts) -> web.Application:
    """The application of one program."""
    site = _Site(registry, status, about, hosts)
    application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[site.guard])
    application.on_response_prepare.append(_harden)
    application.add_routes(
        [
            web.get("/metrics", site.metrics),
            web.get("/healthz", site.healthz),
            web.get("/readyz", site.readyz),
            web.get("/api/v1/streams", site.streams),
            web.get("/api/v1/streams/{stream}/batch-durations", site.durations),
            web.get("/api/v1/streams/{stream}/source", site.source),
            *(web.get(path, _answering(status.loop, answer)) for path, answer in status.more.items()),
            *(web.get(path, _page) for path in PAGE),
        ]
    )
    return application


class _Site:
    """The handlers that need to know the program."""

    def __init__(self, registry: CollectorRegistry, status: Status, about: Mapping[str, Any], hosts: Hosts) -> None:
        self._registry, self._status, self._about, self._hosts = registry, status, about, hosts

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse requests that a web page sends under a name of its own (DNS rebinding)."""
        if not self._hosts.allow(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(text="this address answers only to localhost and admin.hosts\n")
        try:
            return await handler(request)
        except TimeoutError:
            raise web.HTTPServiceUnavailable(text="the program is too busy to answer\n") from None

    async def metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        await self._status.loop.run(self._status.prepare)
        body = await asyncio.to_thread(encode, self._registry)  # /healthz does not wait for it
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(self, _: web.Request) -> web.Response:
        return _verdict({} if await self._status.loop.turns() else {"loop": "the program does nothing any more"})

    async def readyz(self, request: web.Request) -> web.Response:
        """What does not keep the program from its work is told, and fails only who asks strictly."""
        ready, degraded = await self._status.loop.run(lambda: (self._status.ready(), self._status.degraded()))
        if degraded and not ready and "strict" not in request.query:
            return web.json_response({"status": "ok", "degraded": dict(degraded)})
        return _verdict({**degraded, **ready})

    async def streams(self, _: web.Request) -> web.Response:
        def look() -> dict[str, Any]:
            trouble = {**self._status.degraded(), **self._status.ready()}
            fields = {"now": round(time.time(), 3), "trouble": trouble, **self._status.further()}
            return {**fields, "streams": list(self._status.streams())}

        return web.json_response({**self._about, **await self._status.loop.run(look)})

    async def durations(self, request: web.Request) -> web.Response:
        since, find = request.query.get("since", "0"), self._status.durations
        if not (since.isascii() and since.isdigit() and len(since) < MOST_DIGITS):
            raise web.HTTPBadRequest(text="since must be a number of batches, such as 0\n")
        stream = request.match_info["stream"]
        found = await self._status.loop.run(find, stream, int(since)) if find is not None else None
        if found is None:
            raise web.HTTPNotFound(text="no stream of this name has had a batch acknowledged\n")
        return web.json_response(found)

    async def source(self, request: web.Request) -> web.Response:
        find = self._status.source
        found = await self._status.loop.run(find, request.match_info["stream"]) if find is not None else None
        if found is None:
            raise web.HTTPNotFound(text="no stream of this name runs here\n")
        return web.json_response(found)


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _page(request: web.Request) -> web.FileResponse:
    name, kind = PAGE[request.path]
    return web.FileResponse(Path(__file__).parent / "page" / name, headers={"Content-Type": f"{kind}; charset=utf-8"})


def _answering(loop: Loop, make: Callable[[], Awaitable[bytes]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=await loop.wait_for(make), content_type="application/json")

    return answer


def _verdict(reasons: Mapping[str, str]) -> web.Response:
    if reasons:
        return web.json_response({"status": "unavailable", "reasons": dict(reasons)}, status=503)
    return web.json_response({"status": "ok"})
