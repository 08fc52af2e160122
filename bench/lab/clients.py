"""Clients that send records to a forwarder's listeners as fast as it takes them: HTTP requests, syslog messages.

Everything is made before it is sent, so that a client costs little beside the forwarder on the same machine.
"""

from __future__ import annotations

import gzip
import itertools
import mmap
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.lab.forms import counted
from bench.lab.load import Base, Feed
from bench.lab.processes import StartFailed
from streams.addresses import split_address

SOCKET_SECONDS = 60.0
GZIP_LEVEL = 6
SMALL_BODY_BYTES = 16 * 1024
"""A body up to this size leaves in one piece with its head."""
UDP_AT_ONCE = 16
UDP_PAUSE_SECONDS = 0.0005
MOST_WAITING_BYTES = 64 * 1024
"""A UDP socket whose reader has this much to do gets no more for now: the kernel would drop it."""


class Sent(NamedTuple):
    """What was sent, and how long the answer to each request took (nothing where there are no answers)."""

    records: int
    content_bytes: int
    answered_ms: Sequence[float] = ()


def bodies(base: Base, least_bytes: int) -> Iterator[memoryview]:
    """The lines of a file in bodies of at least this size, except for the last one; 0: each line by itself."""
    with base.path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    begin = 0
    for end in base.starts[1:]:
        if end - begin >= least_bytes or end == base.size:
            yield content[begin:end]
            begin = end


class Sender(Protocol):
    """Sends the records of one run, as often as it is asked to."""

    def prepare(self) -> None:
        """Before the clock runs."""

    def send(self) -> Sent:
        """All records of a run; raises StartFailed if they are not taken."""


class Posts:
    """Requests to one stream over some connections that stay open, each with one request at a time."""

    def __init__(
        self, address: str, stream: str, file: Base, *, least_bytes: int, connections: int, keyed: bool, gzipped: bool
    ) -> None:
        self._address, self._file = split_address(address), file
        self._connections, self._keyed = connections, keyed
        self._bodies: Sequence[bytes | memoryview] = list(bodies(file, least_bytes))
        coding = "Content-Encoding: gzip\r\n" if gzipped else ""
        head = f"POST /ingest/{stream} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-ndjson\r\n{coding}"
        self._head = head.encode()
        if gzipped:
            self._bodies = [gzip.compress(body, GZIP_LEVEL) for body in self._bodies]

    def prepare(self) -> None:
        """Nothing: everything is there."""

    def send(self) -> Sent:
        """Send all of them; raises StartFailed for an answer other than 200."""
        answered: list[float] = []
        faults: list[Exception] = []
        turn = itertools.count()

        def work() -> None:
            try:
                with socket.create_connection(self._address, SOCKET_SECONDS) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while not faults and (number := next(turn)) < len(self._bodies):
                        answered.append(self._one(connection, self._bodies[number]))
            except (OSError, StartFailed) as error:
                faults.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise StartFailed(f"a request failed: {faults[0]}")
        return Sent(self._file.records, self._file.content_bytes, answered)

    def _one(self, connection: socket.socket, data: bytes | memoryview) -> float:
        """Send one request; returns the milliseconds until it is answered."""
        key = b"Idempotency-Key: %b\r\n" % uuid.uuid4().hex.encode() if self._keyed else b""
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head, key, len(data))
        started = time.perf_counter()
        if len(data) < SMALL_BODY_BYTES:
            head, data = head + data, b""
        connection.sendall(head)
        connection.sendall(data)
        answer = connection.recv(4096)
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            more = connection.recv(4096)
            if not more:
                raise StartFailed(f"the connection was closed after {answer!r}")
            answer += more
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise StartFailed(answer.decode(errors="replace"))
        return (time.perf_counter() - started) * 1e3


class Copies:
    """Copies of a file, which the forwarder sees one at a time."""

    def __init__(self, file: Base, directory: Path) -> None:
        self._feed, self._file = Feed(file, directory), file

    def prepare(self) -> None:
        """Make a copy where the forwarder does not see it; everything before it is stored."""
        self._feed.remove(self._feed.sent)
        self._feed.stage(1)

    def send(self) -> Sent:
        """Let the forwarder see it."""
        self._feed.place()
        return Sent(self._file.records, self._file.content_bytes)


class Syslog:
    """The lines of a file as syslog messages over one socket: `tcp` (octets counted), `udp` or `unix`."""

    def __init__(self, transport: str, address: str, base: Base) -> None:
        self._transport, self._address, self._base = transport, address, base
        messages = base.path.read_bytes().splitlines()
        self._stream = b"".join(map(counted, messages)) if transport == "tcp" else b""
        self._messages = messages if transport != "tcp" else []

    def prepare(self) -> None:
        """Nothing: everything is there."""

    def send(self) -> Sent:
        """Send all of them, no faster than they are read."""
        if self._transport == "tcp":
            with socket.create_connection(split_address(self._address), SOCKET_SECONDS) as connection:
                connection.sendall(self._stream)
        elif self._transport == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(self._address.removeprefix("unix:"))
                for message in self._messages:
                    sender.send(message)  # waits while the socket's queue is full
        else:
            self._send_udp()
        return Sent(self._base.records, self._base.content_bytes)

    def _send_udp(self) -> None:
        host, port = split_address(self._address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((host, port))
            for first in range(0, len(self._messages), UDP_AT_ONCE):
                while waiting_bytes(port) > MOST_WAITING_BYTES:
                    time.sleep(UDP_PAUSE_SECONDS)
                for message in self._messages[first : first + UDP_AT_ONCE]:
                    sender.send(message)


def waiting_bytes(port: int) -> int:
    """What the UDP socket at this port has not read yet, by the kernel's account (proc(5), /proc/net/udp)."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            return int(fields[4].partition(":")[2], 16)
    return 0
