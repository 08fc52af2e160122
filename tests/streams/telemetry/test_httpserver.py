"""Connections of the admin address, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from streams.telemetry.httpserver import MAX_BODY_BYTES, Handler, Http, Refused, Request, Response
from tests.support.patience import PATIENCE_SECONDS

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = b"x" * (8 << 20)


async def answer(request: Request) -> Response:
    """Tells what was asked for."""
    if request.path == "/refused":
        raise Refused(HTTPStatus.NOT_FOUND, "nothing there", {"X-Why": "none"})
    if request.path == "/broken":
        raise ValueError("out of order")
    if request.path == "/large":
        return Response(LARGE, "text/plain")
    if request.path == "/slow":
        await asyncio.sleep(0.05)
    return Response(f"{request.method} {request.path} {dict(request.query)}".encode(), "text/plain")


@contextlib.asynccontextmanager
async def connected(handle: Handler = answer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http(handle, {"X-All": "yes"}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()
        server.close()
        await asyncio.sleep(0.01)


async def next_answer(reader: asyncio.StreamReader, *, is_head: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert headers["x-all"] == "yes"
    body = b"" if is_head else await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, body


async def ended(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return await reader.read() == b""
    return True


async def test_requests_of_a_connection_are_answered_in_order() -> None:
    async with connected() as (reader, writer):
        writer.write(
            GET % b"slow" + GET % b"a%20b?since=3&strict" + b"HEAD /c HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET % b"d"
        )
        assert (await next_answer(reader))[2] == b"GET /slow {}"
        assert (await next_answer(reader))[2] == b"GET /a b {'since': '3', 'strict': ''}"
        status, headers, _ = await next_answer(reader, is_head=True)
        assert (status, headers["content-length"], headers["content-type"]) == (
            200,
            str(len("HEAD /c {}")),
            "text/plain",
        )
        assert (await next_answer(reader))[2] == b"GET /d {}"
        writer.write(GET % b"e")
        assert (await next_answer(reader))[2] == b"GET /e {}"


@pytest.mark.parametrize("piece_bytes", [1, 7])
async def test_requests_may_come_in_pieces(piece_bytes: int) -> None:
    async with connected() as (reader, writer):
        data = GET % b"a" + b"GET /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nxyz" + GET % b"c"
        for at in range(0, len(data), piece_bytes):
            writer.write(data[at : at + piece_bytes])
            await asyncio.sleep(0)
        assert [(await next_answer(reader))[2] for _ in range(3)] == [b"GET /a {}", b"GET /b {}", b"GET /c {}"]


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]
)
async def test_a_client_that_wants_no_second_answer_gets_none(head: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(head)
        status, headers, _ = await next_answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await ended(reader)


async def test_a_client_that_has_finished_sending_gets_its_answer() -> None:
    async with connected() as (reader, writer):
        writer.write(GET % b"slow")
        writer.write_eof()
        assert (await next_answer(reader))[2] == b"GET /slow {}"
        assert await ended(reader)


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"
BAD = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two lengths": (POST % b"Content-Length: 1\r\nContent-Length: 2", 400),
    "a large body": (POST % b"Content-Length: 5000" + b"x" * 5000, 413),
    "a body without end": (POST % b"Transfer-Encoding: chunked" + b"400\r\n" + bytes(1024) + b"\r\n1\r\nx\r\n", 413),
    "asks before its body": (POST % b"Content-Length: 5\r\nExpect: 100-continue", 417),
    "a long head at once": (GET % (b"a" * 9000), 431),
}


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_no_request_is_refused_and_ends_the_connection(kind: str) -> None:
    data, status = BAD[kind]
    async with connected() as (reader, writer):
        writer.write(data)
        found, headers, body = await next_answer(reader)
        assert (found, headers["connection"], body[-1:]) == (status, "close", b"\n")
        assert await ended(reader)


async def test_a_small_body_is_read_past() -> None:
    async with connected() as (reader, writer):
        writer.write(POST % (b"Content-Length: %d" % MAX_BODY_BYTES) + bytes(MAX_BODY_BYTES) + GET % b"b")
        assert (await next_answer(reader))[2] == b"POST / {}"
        assert (await next_answer(reader))[2] == b"GET /b {}"


async def test_a_refused_request_for_a_head_gets_one() -> None:
    async with connected() as (reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await next_answer(reader, is_head=True))[0] == 417
        assert await ended(reader)


async def test_a_target_that_is_no_address_is_a_refusal_and_no_failure() -> None:
    async with connected() as (reader, writer):
        writer.write(GET % b"/[" + GET % b"a")
        assert (await next_answer(reader))[0] == 400
        assert (await next_answer(reader))[2] == b"GET /a {}"


async def test_a_refusal_is_an_answer_and_a_failure_is_said_and_ends_nothing() -> None:
    with capture_logs() as events:
        async with connected() as (reader, writer):
            writer.write(GET % b"refused" + GET % b"broken" + GET % b"a")
            status, headers, body = await next_answer(reader)
            assert (status, headers["x-why"], body) == (404, "none", b"nothing there\n")
            assert (await next_answer(reader))[0] == 500
            assert (await next_answer(reader))[2] == b"GET /a {}"
    assert [(event["event"], event["reason"]) for event in events] == [
        ("admin request failed", "ValueError: out of order")
    ]


async def test_a_client_that_reads_no_answers_is_not_read() -> None:
    handled = itertools.count()
    seen = functools.partial(next, handled)

    async def handle(request: Request) -> Response:
        seen()
        return await answer(request)

    async with connected(handle) as (reader, writer):
        writer.write(GET % b"large" * 20)
        await asyncio.sleep(0.1)
        assert seen() < 5
        for _ in range(20):
            assert (await next_answer(reader))[2] == LARGE
