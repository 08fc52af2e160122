"""Links without TLS, over TCP and Unix sockets: data, both ends' goodbyes, and bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from streams.errors import HandshakeFailed, LinkError
from streams.security.listener import Listener, listen
from streams.security.plain import NO_TLS, PlainParty
from streams.security.transport import Link

Serve = Callable[[Link], Awaitable[None]]


def unexpected(peer: str, error: HandshakeFailed) -> None:
    raise AssertionError(f"{peer}: {error}")


@contextlib.asynccontextmanager
async def listening(address: str, serve: Serve, *, inbox_bytes: int = 1 << 20) -> AsyncIterator[Listener]:
    listener = await listen(address, PlainParty(), serve, on_failure=unexpected, inbox_bytes=inbox_bytes)
    try:
        yield listener
    finally:
        await listener.close()


async def echo(link: Link) -> None:
    while data := await link.receive():
        link.write(data)
        await link.drain()
    await link.close()


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix:{}/in.sock"])
async def test_bytes_go_both_ways_as_they_are(where: str, tmp_path: Path) -> None:
    async with listening(where.format(tmp_path), echo) as listener:
        reader, writer = await connect(listener.address)
        data = bytes(range(256)) * 4096
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()


async def test_a_plain_link_says_that_it_is_one() -> None:
    links: asyncio.Queue[Link] = asyncio.Queue()

    async def keep(link: Link) -> None:
        links.put_nowait(link)
        assert await link.receive() == b"", "the end of the peer's bytes is its goodbye"

    async with listening("127.0.0.1:0", keep) as listener:
        _, writer = await connect(listener.address)
        link = await links.get()
        assert link.facts == NO_TLS
        writer.close()
        await writer.wait_closed()


async def test_a_socket_of_a_killed_process_is_replaced_and_gone_after_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with listening(f"unix:{path}", echo) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await connect(listener.address)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        listener.stop()
        assert not path.exists()
        with pytest.raises(OSError, match=r"No such file|refused"):
            await connect(listener.address)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after", "links that exist stay"
        writer.close()
        await writer.wait_closed()


async def test_a_socket_that_cannot_be_made_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot listen there"):
        async with listening(f"unix:{tmp_path}/missing/in.sock", echo):
            pass


async def test_what_nobody_takes_is_not_read(tmp_path: Path) -> None:
    links: asyncio.Queue[Link] = asyncio.Queue()

    async def wait(link: Link) -> None:
        links.put_nowait(link)
        await asyncio.sleep(60)

    async with listening(f"unix:{tmp_path}/in.sock", wait, inbox_bytes=100_000) as listener:
        _, writer = await connect(listener.address)
        writer.write(b"x" * 10_000_000)
        link = await links.get()
        await asyncio.sleep(0.2)
        assert 100_000 < len(await link.receive()) < 1_000_000
        writer.transport.abort()
