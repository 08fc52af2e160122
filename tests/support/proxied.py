"""Connections that begin with a header of PROXY protocol, as a proxy sends it."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, ip_address, ip_network

from streams.addresses import split_address
from streams.security.endpoint import Party
from streams.security.proxied import SIGNATURE
from streams.security.transport import Link

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def block(client: str, port: int = 40_000) -> tuple[int, bytes]:
    """The byte for the family, and the addresses: of the client, and of the proxy's own port 7443."""
    source = ip_address(client)
    own = type(source)(1)
    packed = source.packed + own.packed + port.to_bytes(2) + (7443).to_bytes(2)
    return (0x11 if isinstance(source, IPv4Address) else 0x21), packed


def raw(command: int, family: int, rest: bytes, *, size: int | None = None) -> bytes:
    """A header of any kind; `size`: what it announces."""
    return SIGNATURE + bytes((command, family)) + (len(rest) if size is None else size).to_bytes(2) + rest


def header(client: str, port: int = 40_000, *, tlvs: bytes = b"") -> bytes:
    """That of a connection that is passed on."""
    family, addresses = block(client, port)
    return raw(0x21, family, addresses + tlvs)


LOCAL = raw(0x20, 0x00, b"")
"""A proxy's own connection."""


async def connected(address: str) -> socket.socket:
    """A plain connection; it does not block."""
    host, port = split_address(address)
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, port))
    return sock


async def dial_by(address: str, first: bytes, party: Party, *, server_name: str = "localhost") -> Link:
    """A link whose connection begins with these bytes."""
    sock = await connected(address)
    await asyncio.get_running_loop().sock_sendall(sock, first)
    link = Link(party.endpoint(server_name))
    await asyncio.get_running_loop().create_connection(lambda: link, sock=sock)
    await link.establish(10)
    return link
