"""The server process of `logbench handshakes`: every mode, on as many ports as that takes; answers each link once."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from bench.lab.newlinks import credentials
from bench.lab.site import Program
from streams.errors import LinkError
from streams.security import stacks
from streams.security.listener import listen
from streams.security.modes import MODES
from streams.security.transport import Link


def start_server(directory: Path) -> tuple[Program, dict[str, str]]:
    """The server of a site's authorities, and the address of each mode."""
    argv = [sys.executable, "-m", "bench.handshakes.server", str(directory / "pki")]
    server = Program(argv, directory / "server.log")
    server.start()
    found = server.wait_for("listening", times=len(stacks.by_port(MODES.values())))
    return server, {mode: str(event["address"]) for event in found for mode in event["modes"]}


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
    """Serve until the process is ended; a line on stdout for each port has its address and modes."""
    for together in stacks.by_port(MODES.values()):
        party = stacks.server(together, credentials(directory, "receiver"))
        listener = await listen("127.0.0.1:0", party, answer, on_failure=print)
        names = [mode.name for mode in together]
        print(json.dumps({"event": "listening", "address": listener.address, "modes": names}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
