"""Bytes for both ends of a TLS connection over OpenSSL, before and after its handshake; our own TLS 1.3 has its own."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

from streams.errors import LinkError
from streams.security import pki, stacks
from streams.security.endpoint import Credentials, Endpoint, Party
from streams.security.modes import MODES
from tests.fuzz.target import Target, in_pieces
from tests.streams.security.tls13.support import connect

MODE = MODES["hybrid"]
FRESH_SERVER, FRESH_CLIENT, ESTABLISHED = range(3)
MOST_READS = 100


@functools.cache
def _parties() -> tuple[Party, Party]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        authority = pki.create_authority(Path(name))
        found = []
        for leaf, hosts in (("client", []), ("server", ["localhost"])):
            out = Path(name) / leaf
            authority.issue(identities=[f"spiffe://fuzz/{leaf}"], hosts=hosts, out=out, days=1)
            found.append(Credentials(out.with_suffix(".pem"), out.with_suffix(".key"), Path(name) / "ca.pem"))
        return stacks.client(MODE, found[0]), stacks.server([MODE], found[1])


def _ends() -> tuple[Endpoint, Endpoint]:
    client, server = _parties()
    return client.endpoint("localhost"), server.endpoint()


def peer(data: bytes) -> None:
    """Whatever a peer says ends in typed errors, or waits for more."""
    kind = data[0] % 3 if data else 0
    client, server = _ends()
    if kind == ESTABLISHED:
        connect(client, server)
    elif kind == FRESH_CLIENT:
        client.handshake()
    end = client if kind == FRESH_CLIENT else server
    with contextlib.suppress(LinkError):
        for piece in in_pieces(data[1:]) if len(data) % 2 else [data[1:]]:
            end.take()
            end.feed(piece)
            _advance(end)
        end.feed_eof()
        _advance(end)
    end.take()
    end.facts()


def _advance(end: Endpoint) -> None:
    if end.complete or end.handshake():
        for _ in range(MOST_READS):
            if not end.read():
                return
        raise AssertionError("it reads without end")


def _seeds() -> list[bytes]:
    client, server = _ends()
    client.handshake()
    hello = b"".join(client.take())
    server.feed(hello)
    server.handshake()
    flight = b"".join(server.take())
    client, server = _ends()
    connect(client, server)
    client.write(b"data")
    said = b"".join(client.take())
    found = {FRESH_SERVER: [hello], FRESH_CLIENT: [flight], ESTABLISHED: [said, b"\x15\x03\x03\x00\x02\x02\x28"]}
    return [bytes([kind]) + each for kind, many in found.items() for each in many]


TARGETS = {"handshakes": Target(peer, _seeds())}
