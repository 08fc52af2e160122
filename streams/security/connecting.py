"""Makes links: a TCP connection to one of a host's addresses, then the handshake, each within its time limit."""

from __future__ import annotations

import asyncio
import socket
import time

from streams.addresses import split_address
from streams.errors import HandshakeFailed, LinkError
from streams.security.endpoint import Party
from streams.security.transport import Link


async def connect(
    address: str,
    party: Party,
    *,
    server_name: str | None = None,
    connect_timeout: float = 10.0,
    handshake_timeout: float = 10.0,
) -> Link:
    """Make a link to "host:port"; the server must prove that it is `server_name` (the host, if not given)."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    sock = await _connected_socket(host, port, address, connect_timeout)
    connected = time.perf_counter() - started

    try:
        link = Link(party.endpoint(server_name or host))
    except ValueError as error:
        sock.close()
        raise LinkError(f"{address}: {server_name or host!r} cannot be a host name: {error}") from error
    link.connect_seconds = connected
    await loop.create_connection(lambda: link, sock=sock)
    try:
        await link.establish(handshake_timeout)
    except HandshakeFailed as error:
        error.seen = link.attempt().log_fields()
        raise
    return link


async def _connected_socket(host: str, port: int, address: str, seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            error: OSError | None = None
            for family, kind, protocol, _, target in found:
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, target)
                except OSError as refused:
                    sock.close()
                    error = refused
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
            raise LinkError(f"{address}: cannot connect: {error}")
    except TimeoutError:
        raise LinkError(f"{address}: no connection within {seconds:g} s") from None
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a host name
        raise LinkError(f"{address}: cannot connect: {error}") from error
