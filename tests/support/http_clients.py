"""Clients of the http source: Python's http.client, curl, and bytes as the test wants them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

NDJSON = "application/x-ndjson"


@dataclass
class Reply:
    """What a client was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection of http.client, reconnected when it was closed."""

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None, seconds: float = 30.0) -> None:
        self._connection: http.client.HTTPConnection
        if address.startswith("unix:"):
            self._connection = _UnixConnection(address.removeprefix("unix:"), seconds)
        elif tls is not None:
            self._connection = http.client.HTTPSConnection(address, context=tls, timeout=seconds)
        else:
            self._connection = http.client.HTTPConnection(address, timeout=seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, path: str, body: Any, /, *, method: str = "POST", **headers: str) -> Reply:
        """Blocks; header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("content-type", NDJSON)
        self._connection.request(method, path, body, named)
        response = self._connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


async def post(address: str, stream: str, body: Any, /, *, tls: ssl.SSLContext | None = None, **headers: str) -> Reply:
    """One request on a connection of its own."""

    def send() -> Reply:
        with Client(address, tls=tls) as client:
            return client.post(f"/ingest/{stream}", body, **headers)

    return await asyncio.to_thread(send)


@contextlib.asynccontextmanager
async def raw(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the test writes what it wants."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> Reply:
    """The next answer on a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return Reply(int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def curl(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Status and body of one call of curl; its own errors fail the test."""
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--show-error",
        "--write-out",
        "\n%{http_code}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(stdin)
    assert process.returncode == 0, errors.decode()
    body, _, status = out.decode().rpartition("\n")
    return int(status), body
