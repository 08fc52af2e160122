"""Makes links: a TCP connection to one of a host's addresses, then the handshake, each within its time limit.

All addresses of a name are tried, a quarter of a second apart (RFC 8305), and the name is resolved anew each time. One
that takes the connection but makes no link, for example since another program has it now, is left for the others.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence

from aiohappyeyeballs import start_connection

from streams import names
from streams.addresses import split_address
from streams.errors import HandshakeFailed, LinkError, NotListening
from streams.names import AddressInfo
from streams.security.endpoint import Party
from streams.security.transport import Link

NEXT_ADDRESS_SECONDS = 0.25
PATIENCE_SECONDS = 3.0
"""How long a handshake may take while there are further addresses."""


async def connect(
    address: str,
    party: Party,
    *,
    server_name: str | None = None,
    connect_timeout: float = 10.0,
    handshake_timeout: float = 10.0,
    on_failure: Callable[[HandshakeFailed], None] = lambda _: None,
    at: Sequence[AddressInfo] = (),
) -> Link:
    """Make a link to "host:port"; the server must prove that it is `server_name` (the host, if not given).

    `on_failure` is told of handshakes that failed where another address is tried; `at`: only these addresses of the
    host. NotListening if every address refuses the connection; HandshakeFailed and other LinkErrors are those of the
    address that was tried last.
    """
    host, _ = split_address(address)
    proven = names.proven_name(server_name or host)
    left = list(at) or await resolve(address, connect_timeout)
    while True:
        started = time.perf_counter()
        sock = await _connected_socket(left, address, connect_timeout)
        connected = time.perf_counter() - started
        left = _without(left, sock)
        try:
            seconds = min(handshake_timeout, PATIENCE_SECONDS) if left else handshake_timeout
            return await _shake_hands(sock, party, address, proven, connected, seconds)
        except HandshakeFailed as error:
            if not left:
                raise
            on_failure(error)


async def _shake_hands(
    sock: socket.socket, party: Party, address: str, proven: str, connect_seconds: float, seconds: float
) -> Link:
    try:
        link = Link(party.endpoint(proven))
    except ValueError as error:
        sock.close()
        raise LinkError(f"{address}: {proven!r} cannot be a host name: {error}") from error
    link.connect_seconds = connect_seconds
    await asyncio.get_running_loop().create_connection(lambda: link, sock=sock)
    try:
        await link.establish(seconds)
    except HandshakeFailed as error:
        error.seen = link.attempt().log_fields()
        raise
    return link


async def resolve(address: str, seconds: float = 10.0) -> list[AddressInfo]:
    """All addresses of "host:port"; LinkError if there are none."""
    host, port = split_address(address)
    try:
        async with asyncio.timeout(seconds):
            return await names.addresses(host, port)
    except TimeoutError:
        raise LinkError(f"{address}: cannot connect: its name was not resolved within {seconds:g} s") from None
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a host name
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LinkError(f"{address}: cannot connect: its name cannot be resolved: {why}") from error


async def _connected_socket(found: Sequence[AddressInfo], address: str, seconds: float) -> socket.socket:
    try:
        async with asyncio.timeout(seconds):
            return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
    except TimeoutError:
        raise LinkError(f"{address}: no connection within {seconds:g} s") from None
    except OSError as error:
        kind = NotListening if error.errno == errno.ECONNREFUSED else LinkError
        why = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own sentences repeat the address
        raise kind(f"{address}: cannot connect: {why}") from error


def _without(found: Sequence[AddressInfo], used: socket.socket) -> list[AddressInfo]:
    """The addresses but the one that a socket is connected to; none if that cannot be told."""
    try:
        peer = used.getpeername()[:2]
    except OSError:
        return []
    left = [each for each in found if each[4][:2] != peer]
    return left if len(left) < len(found) else []
