"""A TLS stack without TLS, for unit tests of what runs over links: it passes the endpoint contract and nothing more.

Data travels in frames, each a 4-byte length and that many bytes; an empty frame is the goodbye. The handshake needs no
bytes: each side is given the facts that it would have learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator

import msgspec

from streams.errors import LinkError
from streams.security.endpoint import Facts
from streams.security.transport import Link

LENGTH_BYTES = 4
FACTS = Facts(
    version="TLSv1.3",
    group="X25519MLKEM768",
    cipher="TLS_AES_128_GCM_SHA256",
    identities=("receiver",),
    authentication="ecdsa_secp256r1_sha256",
    certificate_expires=datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC),
    certificate_algorithm="EC secp256r1",
)
"""What a forwarder learns of a receiver in mode `hybrid`."""
FORWARDER = msgspec.structs.replace(FACTS, identities=("spiffe://test/forwarder",))
"""What a receiver learns of a forwarder."""


class PlaintextEndpoint:
    """One side of a connection."""

    renews_keys = False
    has_records = False

    def __init__(self, facts: Facts) -> None:
        self.complete = False
        self._facts = facts
        self._incoming = bytearray()
        self._outgoing: list[bytes | bytearray] = []
        self._eof = False

    def handshake(self) -> bool:
        self.complete = True
        return True

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        return msgspec.structs.replace(self._facts, connect_seconds=connect_seconds)

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        self._incoming += ciphertext

    def feed_eof(self) -> None:
        self._eof = True

    def take(self) -> list[bytes | bytearray]:
        parts, self._outgoing = self._outgoing, []
        return parts

    def read(self) -> bytes | None:
        size = int.from_bytes(self._incoming[:LENGTH_BYTES], "big")
        if len(self._incoming) < LENGTH_BYTES + size:
            if self._eof:
                raise LinkError("the link was cut without a goodbye")
            return b""
        if size == 0:
            return None if len(self._incoming) >= LENGTH_BYTES else b""
        data = bytes(self._incoming[LENGTH_BYTES : LENGTH_BYTES + size])
        del self._incoming[: LENGTH_BYTES + size]
        return data

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        if plaintext:
            self._outgoing += [len(plaintext).to_bytes(LENGTH_BYTES, "big"), bytes(plaintext)]

    def close(self) -> None:
        self._outgoing.append(bytes(LENGTH_BYTES))


class PlaintextParty:
    """One side that learns these facts in every handshake."""

    expires = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
    delegated_until: datetime.datetime | None = None

    def __init__(self, facts: Facts = FACTS) -> None:
        self._facts = facts

    def endpoint(self, host: str | None = None) -> PlaintextEndpoint:
        return PlaintextEndpoint(self._facts)


@contextlib.asynccontextmanager
async def links(*, forwarder: Facts = FORWARDER, receiver: Facts = FACTS) -> AsyncIterator[tuple[Link, Link]]:
    """The two ends of a link, over a pair of sockets: the forwarder's, which learns of the receiver, then the other."""
    loop, pair = asyncio.get_running_loop(), socket.socketpair()
    ends = []
    for sock, facts in zip(pair, (receiver, forwarder), strict=True):
        link = Link(PlaintextParty(facts).endpoint())
        sock.setblocking(False)
        await loop.create_connection(lambda link=link: link, sock=sock)  # type: ignore[misc]
        await link.establish(5)
        ends.append(link)
    near, far = ends
    try:
        yield near, far
    finally:
        near.abort()
        far.abort()
