"""A TCP proxy that delays every byte by half a round trip in each direction, in order, at any rate.

It replaces the kernel's own delay (netem), which needs privileges and a module. It is a process of its own, so that it
takes no CPU time from the measured processes. asyncio and uvloop round their timers up to 1 ms; `select` does not.

Unlike a real path it has no loss, no rate limit and no TCP slow start, and it does not delay the connect, which
loopback completes at once; connects are therefore reported separately. `error_rows` measures the proxy's own error.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures.measure import percentile
from bench.lab.site import Program
from streams.addresses import split_address

CHUNK_BYTES = 256 * 1024
HELD_BYTES = 64 * 1024 * 1024
"""Bytes under way in one direction before no more are read: 50 ms at 10 Gbit/s."""
EARLY_SECONDS = 0.0002
"""The kernel wakes sleepers this late after tens of ms: the proxy sleeps that much less, then polls the clock."""
ECHO_BYTES = 1024
WAIT_SECONDS = 10.0


@dataclass(eq=False)
class Way:
    """One direction of a connection: the pieces read, and when each is due at the other end."""

    source: socket.socket
    target: socket.socket
    pieces: deque[tuple[float, bytes]] = field(default_factory=deque)
    held_bytes: int = 0
    open: bool = True
    blocked: bool = False
    done: bool = False

    def take(self, delay_seconds: float) -> None:
        """Read what has arrived; an end of stream is delayed like any byte."""
        try:
            data = self.source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.open = bool(data)
        self.held_bytes += len(data)
        self.pieces.append((time.perf_counter() + delay_seconds, data))

    def deliver(self) -> None:
        """Send what is due, as much as the other end accepts."""
        self.blocked = False
        while self.pieces and self.pieces[0][0] <= time.perf_counter():
            due, data = self.pieces.popleft()
            try:
                if not data:
                    self.done = True
                    self.target.shutdown(socket.SHUT_WR)
                    return
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:  # the other end is gone: discard the rest
                self.pieces.clear()
                self.open, self.done = False, True
                return
            self.held_bytes -= sent
            if sent < len(data):
                self.pieces.appendleft((due, data[sent:]))
                self.blocked = True
                return

    @property
    def due(self) -> float | None:
        """When the next piece is due; None if there is none, or the other end must accept bytes first."""
        return self.pieces[0][0] if self.pieces and not self.blocked else None


def serve(target: str, rtt_seconds: float) -> None:
    """Accept connections until the process is ended; the first line on stdout has the address."""
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")  # otherwise the kernel may wake us 50 µs late
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    print(json.dumps({"event": "listening", "address": address}), flush=True)
    pairs: list[tuple[Way, Way]] = []
    while True:
        ways = [way for pair in pairs for way in pair]
        reading = {way.source: way for way in ways if way.open and way.held_bytes < HELD_BYTES}
        blocked = [way.target for way in ways if way.blocked]
        nearest = min((way.due for way in ways if way.due is not None), default=None)
        wait = None if nearest is None else max(nearest - EARLY_SECONDS - time.perf_counter(), 0.0)
        ready, _, _ = select.select([listener, *reading], blocked, [], wait)
        for source in ready:
            if source in reading:
                reading[source].take(rtt_seconds / 2)
            else:
                pairs += _accept(listener, target)
        for way in ways:
            way.deliver()
        pairs = [pair for pair in pairs if not _ended(pair)]


def _accept(listener: socket.socket, target: str) -> list[tuple[Way, Way]]:
    """The new pair, or none if the target does not accept a connection."""
    client, _ = listener.accept()
    try:
        server = socket.create_connection(split_address(target), timeout=WAIT_SECONDS)
    except OSError:
        client.close()
        return []
    for end in (client, server):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [(Way(client, server), Way(server, client))]


def _ended(pair: tuple[Way, Way]) -> bool:
    up, down = pair
    if not (up.done and down.done):
        return False
    up.source.close()
    up.target.close()
    return True


@contextlib.contextmanager
def delay_proxy(directory: Path, target: str, rtt_seconds: float) -> Iterator[str]:
    """Run one in front of "host:port"; yields its address. Its log is in the directory."""
    argv = [sys.executable, "-m", "bench.handshakes.delayproxy", target, repr(rtt_seconds)]
    program = Program(argv, directory / f"delay-{rtt_seconds * 1e3:g}ms.log")
    program.start()
    try:
        yield str(program.wait_for("listening")[-1]["address"])
    finally:
        program.stop()


# -- its own error -------------------------------------------------------------------------------------------------


def error_rows(directory: Path, rtts_ms: Sequence[float], *, echoes: int = 50) -> list[dict[str, Any]]:
    """How much later than asked for echoes return through the proxy: round trip, less the direct one, less the RTT."""
    with echo_peer() as target:
        direct = percentile(_echo_ms(target, echoes), 0.5)
        rows = []
        for rtt_ms in rtts_ms:
            with delay_proxy(directory, target, rtt_ms / 1e3) as address:
                late = [taken - direct - rtt_ms for taken in _echo_ms(address, echoes)]
            rows.append({"rtt_ms": rtt_ms, "late_p50_ms": percentile(late, 0.5), "late_p95_ms": percentile(late, 0.95)})
    return rows


@contextlib.contextmanager
def echo_peer() -> Iterator[str]:
    """A server that echoes, one connection at a time; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while data := connection.recv(CHUNK_BYTES):
                        connection.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def _echo_ms(address: str, echoes: int) -> list[float]:
    taken = []
    with socket.create_connection(split_address(address), timeout=WAIT_SECONDS) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(echoes):
            started = time.perf_counter()
            link.sendall(bytes(ECHO_BYTES))
            left = ECHO_BYTES
            while left:
                left -= len(link.recv(left)) or left
            taken.append((time.perf_counter() - started) * 1e3)
    return taken


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
