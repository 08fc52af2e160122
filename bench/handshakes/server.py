"""The server process of `logbench handshakes`: it serves every mode, and answers each link's first bytes once."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from bench.lab.newlinks import credentials
from streams.errors import LinkError
from streams.security import stacks
from streams.security.listener import listen
from streams.security.modes import MODES
from streams.security.transport import Link


async def answer(link: Link) -> None:
    """Echo the first bytes, and wait for the other end to close."""
    try:
        link.write(await link.receive())
        while await link.receive():
            pass
        await link.close()
    except LinkError:
        link.abort()


async def serve(directory: Path) -> None:
    """Serve until the process is ended; the first line on stdout has the address."""
    party = stacks.server(MODES.values(), credentials(directory, "receiver"))
    listener = await listen("127.0.0.1:0", party, answer, on_failure=print)
    print(json.dumps({"event": "listening", "address": listener.address}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
