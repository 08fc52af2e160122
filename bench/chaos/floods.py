"""Peers that mean harm to a receiver: `python -m bench.chaos.floods NAME ADDRESS ADMIN PKI SECONDS`.

Most hold certificates of its authority: each repeats one kind of abuse on many links for a while and prints what became
of them, as JSON: the code of the ERROR or NACK, "closed" without one, "open" for what the receiver keeps. It runs at a
low priority: what is measured is what it does to the receiver, not who gets this machine's cores.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvloop

from bench.chaos.attacker import Peer, Run, Target, greet, open_run
from bench.chaos.strangers import admin_connections, connects, half_open
from streams.errors import Code, LinkError
from streams.records import batch as recordbatch
from streams.security.tls13.messages import encode_key_update
from streams.security.tls13.names import ContentType
from streams.wire import codec
from streams.wire import messages as m

LINKS = 64
CROWD = 1990
"""Links that a receiver lets in beside its others: max_links is 2000."""
STEP_BYTES = 64 * 1024
TRICKLE_SECONDS = 5.0
PAUSE_SECONDS = 0.002
KNOWN_CODES = frozenset(Code)
CHUNK_MESSAGES = 2000
NICENESS = 10
PATIENCE_SECONDS = 30.0


Once = Callable[[Target], Awaitable[Counter[str]]]


def repeated(once: Once, links: int = LINKS) -> Run:
    """The same again and again on so many links."""

    async def run(target: Target) -> Counter[str]:
        found = Counter[str]()

        async def client() -> None:
            while not target.is_over:
                try:
                    async with asyncio.timeout(max(target.until - time.monotonic(), 0)):
                        found.update(await once(target))
                except TimeoutError:
                    found["open"] += 1
                except (LinkError, OSError):
                    found["closed"] += 1
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(client() for _ in range(links)))
        return found

    return run


def flood(*messages: m.Message, after_run: bool = False) -> Once:
    """These messages as fast as the link carries them."""
    chunk = b"".join(bytes(part) for message in messages for part in codec.encode(message)) * (
        CHUNK_MESSAGES // len(messages)
    )

    async def once(target: Target) -> Counter[str]:
        peer = await greet(target)
        if after_run:
            await open_run(peer)
        reading = asyncio.ensure_future(peer.drain())
        try:
            while not reading.done():
                peer.link.write(chunk)
                await asyncio.wait({reading, asyncio.ensure_future(peer.link.drain())}, return_when="FIRST_COMPLETED")
        finally:
            reading.cancel()
            peer.link.abort()
        return peer.codes or Counter(["closed"])

    return once


async def key_updates(target: Target) -> Counter[str]:
    """New keys again and again, each answered with new keys of the other end."""
    peer = await greet(target, party=target.own_party())
    writer, reading = peer.link._endpoint._writer, asyncio.ensure_future(peer.drain())  # type: ignore[attr-defined]
    try:
        while not reading.done():
            for _ in range(500):
                writer.write(ContentType.HANDSHAKE, encode_key_update(request=True))
                writer.update()
            peer.link._flush()
            await asyncio.wait({reading, asyncio.ensure_future(peer.link.drain())}, return_when="FIRST_COMPLETED")
            await asyncio.sleep(0)
    finally:
        reading.cancel()
        peer.link.abort()
    return peer.codes or Counter(["closed"])


async def tiny_batches(target: Target) -> Counter[str]:
    """Batches of one record, as fast as they are acknowledged."""
    peer = await greet(target)
    try:
        await open_run(peer)
        built = recordbatch.build([b"{}"], timestamp_ms=int(time.time() * 1000), codec=recordbatch.Codec.NONE)
        for sequence in count():
            stamped = recordbatch.stamp(
                built, producer_id=peer.producer_id, producer_epoch=0, base_sequence=sequence % recordbatch.SEQUENCES
            )
            peer.say(m.Batch(sequence, 0, 1, memoryview(stamped)))
            if sequence >= m.MAX_WINDOW - 1 and await peer.hear(m.Ack, m.Nack, m.Error) is None:
                break
    finally:
        peer.link.abort()
    return peer.codes


async def open_runs(target: Target) -> Counter[str]:
    """A new producer again and again."""
    peer = await greet(target)
    try:
        for number in count():
            peer.say(m.OpenRun(number))
            if await peer.hear(m.Run, m.Nack, m.Error) is None:
                break
    finally:
        peer.link.abort()
    return peer.codes


async def names(target: Target) -> Counter[str]:
    """A stream of another name on each link, with a run."""
    peer = await greet(target, stream=f"name-{random.randrange(1 << 40)}")
    try:
        await open_run(peer)
    finally:
        peer.link.abort()
    return Counter(["run"])


async def reconnects(target: Target) -> Counter[str]:
    """Handshakes one after the other."""
    peer = await greet(target)
    peer.link.abort()
    return Counter(["link"])


async def lies(target: Target) -> Counter[str]:
    """Batches that announce 2⁶² records."""
    peer = await greet(target)
    await open_run(peer)
    reading = asyncio.ensure_future(peer.drain())
    try:
        for seq in range(m.MAX_WINDOW):
            peer.say(m.Batch(seq, 0, 1 << 62, memoryview(bytes(100))))
        await asyncio.wait({reading}, timeout=1)
    finally:
        reading.cancel()
        peer.link.abort()
    return peer.codes or Counter(["unanswered"])


def unfinished(links: int, size: int) -> Run:
    """Batches of which all but the end comes, then a byte now and then; of 0 bytes: none, and nobody says anything."""
    frame = b"".join(bytes(part) for part in codec.encode(m.Batch(0, 0, 1, memoryview(bytes(size)))))

    async def one(target: Target, identity: int) -> str:
        try:
            peer = await greet(target, identity=identity)
            peer.link._transport.set_write_buffer_limits(high=STEP_BYTES)  # type: ignore[union-attr]
            await open_run(peer)
            reading = asyncio.ensure_future(peer.drain())
            try:
                if size:
                    await _begin(peer, frame, reading, target)
                await asyncio.wait({reading}, timeout=max(target.until - time.monotonic(), 0))
                return next(iter(peer.codes), "closed" if reading.done() else "open")
            finally:
                reading.cancel()
                peer.link.abort()
        except (LinkError, OSError) as error:
            return str(error) if str(error) in KNOWN_CODES else "closed"

    async def run(target: Target) -> Counter[str]:
        tasks = []
        for number in range(links):
            tasks.append(asyncio.ensure_future(one(target, number % target.identities)))
            await asyncio.sleep(PAUSE_SECONDS)
        return Counter(await asyncio.gather(*tasks))

    return run


async def _begin(peer: Peer, frame: bytes, reading: asyncio.Future[None], target: Target) -> None:
    """Send a frame, at first as fast as it is taken, and its last part so slowly that it never ends."""
    sent = 0
    while not reading.done() and not target.is_over:
        is_fast = sent < len(frame) - 2 * STEP_BYTES
        step = STEP_BYTES if is_fast else 1
        peer.link.write(frame[sent : sent + step])
        sent += step
        draining = asyncio.ensure_future(peer.link.drain())
        waits = {reading, draining} if is_fast else {reading}
        await asyncio.wait(
            waits,
            return_when="FIRST_COMPLETED",
            timeout=min(max(target.until - time.monotonic(), 0), math.inf if is_fast else TRICKLE_SECONDS),
        )
        draining.cancel()


# -- the list ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flood:
    """`outcomes`: all that may become of its links. `identities`: certificates that it needs."""

    title: str
    run: Run
    outcomes: frozenset[str]
    identities: int = 1
    least_seconds: float = 0.0
    """Less is not enough to begin."""


def _flood(title: str, run: Run, *outcomes: str, identities: int = 1, least_seconds: float = 0.0) -> Flood:
    return Flood(title, run, frozenset(outcomes), identities, least_seconds)


TOO_FAST = ("too_fast", "closed", "open", "too_many_links")
NEVER_END = ("timeout", "open", "closed", "too_many_links")
HALF = ("closed", "open", "answered")
FLOODS: dict[str, Flood] = {
    "pings": _flood("PINGs on 64 links", repeated(flood(m.Ping(1 << 60))), *TOO_FAST),
    "reports": _flood(
        "REPORTs on 64 links", repeated(flood(m.Report("flood", "boot", 1 << 62, 1, 1, 1, 1))), *TOO_FAST
    ),
    "key-updates": _flood("KeyUpdates on 64 links", repeated(key_updates), *TOO_FAST),
    "tiny-batches": _flood("batches of a record on 64 links", repeated(tiny_batches), "open", "closed"),
    "open-runs": _flood("OPEN_RUNs on 64 links", repeated(open_runs), "open", "closed"),
    "unfinished": _flood("64 batches that never end", unfinished(64, 1_000_000), *NEVER_END, identities=8),
    "overlong": _flood("64 batches of 10 MB that never end", unfinished(64, 10_000_000), *NEVER_END, identities=8),
    "lies": _flood("batches that announce 2^62 records", repeated(lies, 8), "corrupt", "not_tried", "closed", "open"),
    "names": _flood("a stream of another name on each link", repeated(names, 8), "run", "closed", "open"),
    "reconnects": _flood("handshakes without end on 64 links", repeated(reconnects), "link", "closed", "open"),
    "half-open": _flood("1000 handshakes that say nothing", half_open(b""), *HALF),
    "half-said": _flood("1000 handshakes that stop in the middle", half_open(b"\x16\x03\x01\x02\x00\x01"), *HALF),
    "connects": _flood("200 connections a second", connects, *HALF),
    "admin": _flood("1000 connections to the admin address", admin_connections, *HALF),
    "crowd": _flood("1990 links that say nothing", unfinished(CROWD, 0), *NEVER_END, identities=32, least_seconds=25),
    "crowd-unfinished": _flood(
        "1990 batches of 1 MB that never end",
        unfinished(CROWD, 1_000_000),
        *NEVER_END,
        identities=32,
        least_seconds=25,
    ),
}


def main() -> None:
    """Run one of them and print what became of it."""
    name, address, admin, pki, seconds = sys.argv[1:]
    os.nice(NICENESS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    target = Target(name, address, admin, Path(pki), time.monotonic() + float(seconds), FLOODS[name].identities)
    print(json.dumps(uvloop.run(FLOODS[name].run(target))))


if __name__ == "__main__":
    main()
