"""What a client sends is taken in turns with other clients, also when nobody wants it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logfwd.sources.front import Front
from streams.config.units import MIB
from tests.support.http_clients import answer
from tests.support.http_source import Listening

READS_A_MIB = 4
"""At least: what comes from the network at a time is bounded (security/arriving.py)."""
CHUNK = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)


@pytest.fixture
async def takes(tmp_path: Path) -> AsyncIterator[list[int]]:
    """A share for each piece of clients' work at the socket in.sock."""
    front, found = Front(), list[int]()
    take = front.turns.take

    async def no_key(_: bytes) -> None:
        return None

    async def noted(shares: int = 1) -> None:
        found.append(shares)
        await take(shares)

    front.turns.take = noted  # type: ignore[method-assign]
    with front.open("s") as handle:
        handle.start(lambda: 100 * MIB, no_key)
        listening = Listening(front, tmp_path, block_bytes=100_000)
        await listening.open()
        yield found
        await listening.close()


@pytest.mark.parametrize(
    ("head", "piece", "mib"),
    [("Transfer-Encoding: chunked", CHUNK, 17), (f"Content-Length: {1 << 40}", bytes(MIB), 4)],
    ids=["a body that becomes too long", "what is still sent after the answer"],
)
async def test_all_that_a_client_sends_is_taken_in_turns(
    tmp_path: Path, takes: list[int], head: str, piece: bytes, mib: int
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "in.sock"))
    writer.write(f"POST /ingest/s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode())
    for _ in range(mib):
        writer.write(piece)
        await writer.drain()
    assert (await answer(reader)).status == 413
    writer.close()
    assert len(takes) >= (mib - 1) * READS_A_MIB
