"""Receivers that mean harm to a forwarder: `python -m bench.chaos.impostors NAME PKI`.

Each holds a receiver's certificate, prints its address, serves one kind of abuse until it is told to stop (SIGTERM),
and then prints how many links it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvloop

from bench.chaos.attacker import MODE, Peer
from bench.lab.newlinks import credentials
from streams.errors import LinkError
from streams.security import stacks
from streams.security.listener import listen
from streams.security.modes import MODES
from streams.security.transport import Link
from streams.wire import codec
from streams.wire import messages as m

CHUNK_MESSAGES = 2000
TOPIC = "flood"

Serve = Callable[[Peer], Awaitable[None]]


async def _welcome(peer: Peer) -> None:
    await peer.hear(m.Hello)
    peer.say(m.Welcome(m.VERSION, "session", "cluster", TOPIC, "topic-id", 1_000_000, m.MAX_WINDOW, 0))


async def _give_run(peer: Peer, *, number: int = 0) -> None:
    """`number`: added to that of the run that was asked for."""
    if isinstance(asked := await peer.hear(m.OpenRun), m.OpenRun):
        peer.say(m.Run(asked.run + number, TOPIC, "topic-id", 0, 7, b"grant", max_message_bytes=1_000_000))


async def pings(peer: Peer) -> None:
    """PINGs without end; their answers are not read."""
    chunk = b"".join(codec.encode(m.Ping(1 << 60))) * CHUNK_MESSAGES
    await _welcome(peer)
    await _give_run(peer)
    peer.link.hold(True)
    while not peer.link._gone.done():
        peer.link.write(chunk)
        await peer.link.drain()
        await asyncio.sleep(0)


async def future(peer: Peer) -> None:
    """Acknowledges what was not sent."""
    await _welcome(peer)
    await _give_run(peer)
    for seq in count(1):
        if await peer.hear(m.Batch) is None:
            return
        peer.say(m.Ack(seq, 0, 0))


async def other_run(peer: Peer) -> None:
    """Opens another run than it was asked for."""
    await _welcome(peer)
    await _give_run(peer, number=1)
    await peer.drain()


async def goodbye(peer: Peer) -> None:
    """Welcomes, and closes the link."""
    await _welcome(peer)
    await peer.link.close()


async def goaway(peer: Peer) -> None:
    """Welcomes, and asks to leave."""
    await _welcome(peer)
    peer.say(m.Goaway("again", 0))
    await peer.drain()


async def endless(peer: Peer) -> None:
    """A message of 16 MiB that never ends."""
    await _welcome(peer)
    peer.link.write(m.MAX_FRAME_BYTES.to_bytes(4, "big") + bytes(m.MAX_FRAME_BYTES - 1))
    await peer.drain()


async def mute(peer: Peer) -> None:
    """Welcomes, gives a run, reads every batch and answers none."""
    await _welcome(peer)
    await _give_run(peer)
    await peer.drain()


@dataclass(frozen=True)
class Impostor:
    title: str
    serve: Serve


IMPOSTORS = {
    "pings": Impostor("a flood of PINGs, reads nothing", pings),
    "future": Impostor("acknowledges what was not sent", future),
    "other-run": Impostor("opens another run than asked for", other_run),
    "goodbye": Impostor("welcomes and closes", goodbye),
    "goaway": Impostor("welcomes and asks to leave", goaway),
    "endless": Impostor("a message of 16 MiB that never ends", endless),
    "mute": Impostor("answers no batch", mute),
}


async def run(serve: Serve, pki: Path) -> int:
    """Serve until SIGTERM; returns how many links there were."""
    links, stopped = count(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    async def on_link(link: Link) -> None:
        next(links)
        with contextlib.suppress(LinkError):
            await serve(Peer(link))

    party = stacks.server([MODES[MODE]], credentials(pki, "receiver"))
    listener = await listen("127.0.0.1:0", party, on_link, on_failure=lambda *_: None)
    print(listener.address, flush=True)
    await stopped.wait()
    await listener.close()
    return next(links)


def main() -> None:
    """Be one of them."""
    name, pki = sys.argv[1:]
    print(uvloop.run(run(IMPOSTORS[name].serve, Path(pki))))


if __name__ == "__main__":
    main()
