"""What the admin port answers, path by path.

Imported at the first connection: many programs are never asked (admin.py).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from streams.telemetry.adminthread import Loop
from streams.telemetry.hosts import Hosts
from streams.telemetry.httpserver import METHODS, Handler, Http, Refused, Request, Response

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

OF_STREAM = re.compile(r"/api/v1/streams/([^/]+)/(batch-durations|source)")

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


def make(
    registry: CollectorRegistry, status: Status, about: Mapping[str, Any], hosts: Hosts
) -> Callable[[], asyncio.Protocol]:
    """Makes what serves a connection to one program."""
    site = _Site(registry, status, about, hosts)
    return lambda: Http(site.answer, HEADERS)


class _Site:
    """What there is at one program."""

    def __init__(self, registry: CollectorRegistry, status: Status, about: Mapping[str, Any], hosts: Hosts) -> None:
        self._registry, self._status, self._about, self._hosts = registry, status, about, hosts
        self._paths: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/api/v1/streams": self._streams,
            **{path: _answering(status.loop, answer) for path, answer in status.more.items()},
            **dict.fromkeys(PAGE, _page),
        }

    async def answer(self, request: Request) -> Response:
        """Refuse requests that a web page sends under a name of its own (DNS rebinding), and what is not here."""
        if not self._hosts.allow(request.headers.get("host", "")):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this address answers only to localhost and admin.hosts")
        handle = self._paths.get(request.path) or self._of_stream(request.path)
        if handle is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this path")
        if request.method not in METHODS:
            text = f"{request.method} is not allowed here"
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": ", ".join(METHODS)})
        try:
            return await handle(request)
        except TimeoutError:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the program is too busy to answer") from None

    def _of_stream(self, path: str) -> Handler | None:
        if (match := OF_STREAM.fullmatch(path)) is None:
            return None
        stream, what = match.groups()
        answer = self._durations if what == "batch-durations" else self._source
        return lambda request: answer(request, stream)

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        await self._status.loop.run(self._status.prepare)
        body = await asyncio.to_thread(encode, self._registry)  # /healthz does not wait for it
        return Response(body, content_type)

    async def _healthz(self, _: Request) -> Response:
        return _verdict({} if await self._status.loop.turns() else {"loop": "the program does nothing any more"})

    async def _readyz(self, request: Request) -> Response:
        """What does not keep the program from its work is told, and fails only who asks strictly."""
        ready, degraded = await self._status.loop.run(lambda: (self._status.ready(), self._status.degraded()))
        if degraded and not ready and "strict" not in request.query:
            return _json({"status": "ok", "degraded": degraded})
        return _verdict({**degraded, **ready})

    async def _streams(self, _: Request) -> Response:
        def look() -> dict[str, Any]:
            trouble = {**self._status.degraded(), **self._status.ready()}
            fields = {"now": round(time.time(), 3), "trouble": trouble, **self._status.further()}
            return {**fields, "streams": list(self._status.streams())}

        return _json({**self._about, **await self._status.loop.run(look)})

    async def _durations(self, request: Request, stream: str) -> Response:
        since, find = request.query.get("since", "0"), self._status.durations
        if not (since.isascii() and since.isdigit() and len(since) < MOST_DIGITS):
            raise Refused(HTTPStatus.BAD_REQUEST, "since must be a number of batches, such as 0")
        found = await self._status.loop.run(find, stream, int(since)) if find is not None else None
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no stream of this name has had a batch acknowledged")
        return _json(found)

    async def _source(self, _: Request, stream: str) -> Response:
        find = self._status.source
        found = await self._status.loop.run(find, stream) if find is not None else None
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no stream of this name runs here")
        return _json(found)


async def _page(request: Request) -> Response:
    name, kind = PAGE[request.path]
    return Response((Path(__file__).parent / "page" / name).read_bytes(), f"{kind}; charset=utf-8")


def _answering(loop: Loop, make: Callable[[], Awaitable[bytes]]) -> Handler:
    async def answer(_: Request) -> Response:
        return Response(await loop.wait_for(make))

    return answer


def _json(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), status=status)


def _verdict(reasons: Mapping[str, str]) -> Response:
    if reasons:
        return _json({"status": "unavailable", "reasons": reasons}, HTTPStatus.SERVICE_UNAVAILABLE)
    return _json({"status": "ok"})
