"""A tap between a client and a server: one link, and everything that went over its wire."""

from __future__ import annotations

import asyncio

from bench.handshakes import wire_bytes
from streams.addresses import split_address
from streams.security.connecting import connect
from streams.security.endpoint import Facts, Party

Piece = tuple[wire_bytes.Sender, bytes]


async def tapped(target: str, party: Party) -> tuple[Facts, list[Piece]]:
    """One link to a server that answers: the client's facts, and all bytes in order."""
    pieces: list[Piece] = []
    over: list[asyncio.Task[None]] = []

    async def pump(sender: wire_bytes.Sender, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            pieces.append((sender, data))
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*split_address(target))
        over.append(asyncio.create_task(pump("client", reader, requests)))
        over.append(asyncio.create_task(pump("server", answers, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = await connect(f"127.0.0.1:{port}", party, server_name="localhost")
        link.write(b"?")
        await link.receive()
        await link.close()
        await asyncio.gather(*over)
    return link.facts, pieces
