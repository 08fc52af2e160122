"""Clients that mean harm to the forwarder's listeners: `python -m bench.chaos.attacks NAME ADDRESS SECONDS`.

Each repeats one kind of abuse for a while and prints what became of its connections, as JSON: a status for each answer,
"closed" without one, "open" for what the listener keeps, "sent" where nothing is ever answered. It runs at a low
priority: what is measured is what it does to the forwarder, not who gets this machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import resource
import socket
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from bench.lab.forms import counted
from streams.addresses import split_address
from streams.config.units import MIB

ANSWER_SECONDS = 30.0
BOMB_BYTES = 256 * MIB
NESTED = 100_000
CONNECTIONS = 1000
FEW = 4
NICENESS = 10

JSON, NDJSON = b"application/json", b"application/x-ndjson"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Once = Callable[[str], Awaitable[str]]
Run = Callable[[str, float], Coroutine[Any, Any, Counter[str]]]


async def connect(address: str) -> Connection:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    return await asyncio.open_connection(*split_address(address))


def post(body: bytes, content_type: bytes = NDJSON, coding: bytes = b"", length: int | None = None) -> bytes:
    """A request to the stream `web`."""
    more = b"Content-Encoding: %b\r\n" % coding if coding else b""
    size = len(body) if length is None else length
    head = b"POST /ingest/web HTTP/1.1\r\nHost: h\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (content_type, more, size) + body


async def exchange(address: str, pieces: Iterable[bytes], pause_seconds: float = 0.0) -> str:
    """Send pieces until they end or an answer comes; its status, or "closed"."""
    try:
        reader, writer = await connect(address)
    except OSError:
        return "closed"
    answer = asyncio.ensure_future(reader.read(4096))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            for piece in pieces:
                if answer.done():
                    break
                writer.write(piece)
                await writer.drain()
                if pause_seconds:
                    await asyncio.wait({answer}, timeout=pause_seconds)
            return (await answer)[9:12].decode() or "closed"
    except TimeoutError:
        return "open"
    except OSError:
        with contextlib.suppress(OSError):
            return (await answer)[9:12].decode() or "closed"
        return "closed"
    finally:
        answer.cancel()
        writer.transport.abort()


async def repeated(address: str, seconds: float, once: Once, at_a_time: int = FEW) -> Counter[str]:
    """The same again and again, by some clients."""
    found, deadline = Counter[str](), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < deadline:
            found[await once(address)] += 1

    await asyncio.gather(*(client() for _ in range(at_a_time)))
    return found


def in_turns(requests: Sequence[Iterable[bytes]]) -> Once:
    """One of these after the other."""
    count = 0

    async def once(address: str) -> str:
        nonlocal count
        count += 1
        return await exchange(address, requests[count % len(requests)])

    return once


# -- http ----------------------------------------------------------------------------------------------------------


async def http_oversized(address: str, seconds: float) -> Counter[str]:
    """Bodies announced or sent beyond the limit, and a head without end."""
    chunked = b"POST /ingest/web HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
    head = b"POST /ingest/web HTTP/1.1\r\nX: " + b"x" * MIB
    return await repeated(address, seconds, in_turns([[post(b"", length=1 << 40)], [chunked, *[chunk] * 64], [head]]))


async def http_bombs(address: str, seconds: float) -> Counter[str]:
    """Small bodies that decompress to 256 MiB."""
    zeros = bytes(BOMB_BYTES)
    bombs = {b"gzip": gzip.compress(zeros, 1), b"zstd": zstandard.compress(zeros), b"deflate": zlib.compress(zeros, 1)}
    del zeros
    return await repeated(address, seconds, in_turns([[post(body, JSON, name)] for name, body in bombs.items()]))


async def http_nested(address: str, seconds: float) -> Counter[str]:
    """JSON nested 100 000 deep, as a body and as a line of one."""
    deep = [b"[" * NESTED + b"]" * NESTED, b'{"a":' * NESTED + b"1" + b"}" * NESTED]
    requests = [[post(body, kind)] for body in deep for kind in (JSON, NDJSON)]
    return await repeated(address, seconds, in_turns(requests))


async def http_tiny_elements(address: str, seconds: float) -> Counter[str]:
    """16 MiB of array with an element in every second byte."""
    body = b"[" + b"1," * (8 * MIB - 2) + b"1]"
    return await repeated(address, seconds, in_turns([[post(body, JSON)]]))


async def http_large(address: str, seconds: float) -> Counter[str]:
    """Valid arrays of 15 MB, of which as many are taken as there is room for."""
    body = b"[" + b",".join([b'{"path":"/index.html","status":200,"padding":"%b"}' % (b"x" * 100)] * 100_000) + b"]"
    return await repeated(address, seconds, in_turns([[post(body, JSON)]]))


async def http_slow(address: str, seconds: float) -> Counter[str]:
    """200 clients that send byte by byte, or stop in the middle of a request."""
    whole = post(b"{}\n" * 100)
    slow = [whole[at : at + 1] for at in range(len(whole))]

    async def once(address: str) -> str:
        half = random.random() < 0.5
        return await exchange(address, [whole[: len(whole) // 2]] if half else slow, pause_seconds=0.2)

    return await repeated(address, seconds, once, at_a_time=200)


async def http_garbage(address: str, seconds: float) -> Counter[str]:
    """Random bytes, and the start of TLS."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512)
    return await repeated(
        address, seconds, in_turns([[os.urandom(4096)], [hello], [b"\r\n" * 5000], [b"\0" * 100_000]])
    )


async def http_chunks(address: str, seconds: float) -> Counter[str]:
    """Bodies in chunks of one byte."""
    head = b"POST /ingest/web HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await repeated(address, seconds, in_turns([[head + b"1\r\nx\r\n" * 100_000]]))


async def http_pipelined(address: str, seconds: float) -> Counter[str]:
    """Requests for nothing, thousands at a time on one connection."""
    requests = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 2000

    async def once(address: str) -> str:
        reader, writer = await connect(address)
        try:
            writer.write(requests)
            async with asyncio.timeout(ANSWER_SECONDS):
                for _ in range(2000):
                    if not (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404 "):
                        return "other"
            return "404"
        except (OSError, asyncio.IncompleteReadError):
            return "closed"
        finally:
            writer.transport.abort()

    return await repeated(address, seconds, once)


# -- syslog --------------------------------------------------------------------------------------------------------

MESSAGE = b"<13>1 2026-11-29T19:09:12.282815+00:00 web1 app 411 ID47 - a message of a program that logs too much"
LARGE = b"<13>1 2026-11-29T19:09:12Z web1 app 411 ID47 [a@1 %b] x" % b" ".join(
    b'p%d="\\"v\\""' % n for n in range(4000)
)


async def syslog_oversized(address: str, seconds: float) -> Counter[str]:
    """A count, and a line, beyond the limit."""
    return await repeated(address, seconds, in_turns([[b"9999999 <13>"], [b"<13>" + b"x" * MIB]]))


async def syslog_garbage(address: str, seconds: float) -> Counter[str]:
    """Random bytes after each kind of first byte."""
    return await repeated(address, seconds, in_turns([[os.urandom(4096)], [b"<" + b"\0" * MIB], [b"9" * 4096]]))


async def syslog_slow(address: str, seconds: float) -> Counter[str]:
    """200 clients that send byte by byte, or stop in the middle of a message."""
    whole = counted(MESSAGE)
    slow = [whole[at : at + 1] for at in range(len(whole) - 1)]

    async def once(address: str) -> str:
        half = random.random() < 0.5
        return await exchange(address, [whole[: len(whole) // 2]] if half else slow, pause_seconds=0.2)

    return await repeated(address, seconds, once, at_a_time=200)


def _flood(data: bytes) -> Run:
    async def flood(address: str, seconds: float) -> Counter[str]:
        async def once(address: str) -> str:
            _, writer = await connect(address)
            try:
                writer.write(data)
                async with asyncio.timeout(ANSWER_SECONDS):
                    await writer.drain()
                writer.close()
                return "sent"
            except (OSError, TimeoutError):
                writer.transport.abort()
                return "closed"

        return await repeated(address, seconds, once, at_a_time=64)

    return flood


def _datagrams(message: bytes) -> Run:
    async def flood(address: str, seconds: float) -> Counter[str]:
        found, deadline = Counter[str](), time.monotonic() + seconds
        is_unix = address.startswith("unix:")
        kind = socket.AF_UNIX if is_unix else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(address.removeprefix("unix:") if is_unix else split_address(address))
            while time.monotonic() < deadline:
                for _ in range(64):
                    try:
                        sender.send(message)
                        found["sent"] += 1
                    except OSError:  # its queue is full
                        break
                await asyncio.sleep(0.001)
        return found

    return flood


# -- both ----------------------------------------------------------------------------------------------------------


async def connections(address: str, seconds: float) -> Counter[str]:
    """1000 connections at a time that send nothing."""
    deadline = time.monotonic() + seconds

    async def once(address: str) -> str:
        try:
            reader, writer = await connect(address)
        except OSError:
            return "closed"
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(deadline - time.monotonic(), 0)):
                return (await reader.read(4096))[9:12].decode() or "closed"
        except TimeoutError:
            return "open"
        except OSError:
            return "closed"
        finally:
            writer.transport.abort()

    found = Counter[str](await asyncio.gather(*(once(address) for _ in range(CONNECTIONS))))
    await asyncio.sleep(max(deadline - time.monotonic(), 0))
    return found


# -- the list ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """`listener`: which of the forwarder's listeners it is for. `outcomes`: all that may become of its connections."""

    title: str
    listener: str
    run: Run
    outcomes: frozenset[str]


def _attack(title: str, listener: str, run: Run, *outcomes: str) -> Attack:
    return Attack(title, listener, run, frozenset(outcomes))


ATTACKS: Mapping[str, Attack] = {
    "http-oversized": _attack("http: oversized", "http", http_oversized, "413", "431"),
    "http-bombs": _attack("http: gzip, zstd, deflate bombs", "http", http_bombs, "413", "429"),
    "http-nested": _attack("http: nested 100 000 deep", "http", http_nested, "400", "200", "429"),
    "http-tiny": _attack("http: 8 million elements", "http", http_tiny_elements, "413", "429"),
    "http-large": _attack("http: arrays of 15 MB", "http", http_large, "200", "429"),
    "http-slow": _attack("http: 200 slow clients", "http", http_slow, "408", "200", "429"),
    "http-garbage": _attack("http: garbage", "http", http_garbage, "400", "408", "431"),
    "http-chunks": _attack("http: chunks of a byte", "http", http_chunks, "400"),
    "http-pipelined": _attack("http: 2000 requests at once", "http", http_pipelined, "404"),
    "http-connections": _attack("http: 1000 connections", "http", connections, "503", "closed"),
    "syslog-oversized": _attack("syslog tcp: oversized", "tcp", syslog_oversized, "closed"),
    "syslog-garbage": _attack("syslog tcp: garbage", "tcp", syslog_garbage, "closed"),
    "syslog-slow": _attack("syslog tcp: 200 slow clients", "tcp", syslog_slow, "closed"),
    "syslog-connections": _attack("syslog tcp: 1000 connections", "tcp", connections, "open", "closed"),
    "syslog-flood": _attack("syslog tcp: flood", "tcp", _flood(counted(MESSAGE) * 5000), "sent", "closed"),
    "syslog-large": _attack("syslog tcp: flood of large ones", "tcp", _flood(counted(LARGE) * 16), "sent", "closed"),
    "udp-flood": _attack("syslog udp: flood", "udp", _datagrams(MESSAGE), "sent"),
    "udp-large": _attack("syslog udp: flood of large ones", "udp", _datagrams(LARGE), "sent"),
    "udp-garbage": _attack("syslog udp: garbage", "udp", _datagrams(os.urandom(60_000)), "sent"),
    "unix-flood": _attack("syslog unix: flood of large ones", "unix", _datagrams(LARGE), "sent"),
}


def main() -> None:
    """Run one attack and print what became of it."""
    name, address, seconds = sys.argv[1:]
    os.nice(NICENESS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print(json.dumps(asyncio.run(ATTACKS[name].run(address, float(seconds)))))


if __name__ == "__main__":
    main()
