"""What a proxy says of a connection before its first byte: the header of PROXY protocol, version 2. No I/O.

The header names the address that the proxy was connected to from. It proves nothing, so whoever listens believes it
from proxies that it knows, and for nothing but logs and shares. What follows the addresses (TLVs) is passed over.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from streams.errors import HandshakeFailed

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MOST_BYTES = 536
"""Of a whole header: what any network carries in one segment."""
_HEAD_BYTES = 16
_LOCAL, _PROXIED = 0x20, 0x21
"""Version and command."""
_PORT_BYTES = 2
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}
"""By family and transport: TCP over IPv4, TCP over IPv6."""
_BLOCK_BYTES = {0x00: 0, 0x31: 2 * 108} | {kind: 2 * (size + _PORT_BYTES) for kind, size in _ADDRESS_BYTES.items()}
"""Both addresses and ports; for unspecified, and a stream over a Unix socket, what they say is no address of a host."""


class Introduced(NamedTuple):
    """What a header says."""

    size: int
    """Its own bytes; what comes behind them is the client's."""
    client: tuple[str, int] | None
    """Address and port of the client; None if the address of the connection stands."""
    is_local: bool
    """Whether the proxy has connected on its own account, as for a health check."""


def parse(data: bytes) -> Introduced | None:
    """The header that a connection begins with; None while more has to come.

    HandshakeFailed as soon as it can be no header of at most MOST_BYTES: `no_proxy_header` if it does not begin as
    one, else `proxy_header`.
    """
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        instead = ": this is version 1" if data.startswith(b"PROXY") else ""
        raise HandshakeFailed("no_proxy_header", f"no header of PROXY protocol version 2{instead}")
    if len(data) < _HEAD_BYTES:
        return None
    command, family, size = data[12], data[13], _HEAD_BYTES + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXIED):
        raise _wrong(f"version and command {command:#04x}")
    if size > MOST_BYTES:
        raise _wrong(f"{size} bytes, more than {MOST_BYTES}")
    if command == _LOCAL:
        return Introduced(size, None, is_local=True) if len(data) >= size else None
    if family not in _BLOCK_BYTES:
        raise _wrong(f"address family and transport {family:#04x}")
    if size < _HEAD_BYTES + _BLOCK_BYTES[family]:
        raise _wrong(f"{size} bytes are too few for its addresses")
    if len(data) < size:
        return None
    return Introduced(size, _client(data, _ADDRESS_BYTES.get(family, 0)), is_local=False)


def _client(data: bytes, length: int) -> tuple[str, int] | None:
    """The first of both addresses, and of both ports behind them."""
    if not length:
        return None
    port = _HEAD_BYTES + 2 * length
    address = ip_address(data[_HEAD_BYTES : _HEAD_BYTES + length])
    return str(address), int.from_bytes(data[port : port + _PORT_BYTES])


def _wrong(what: str) -> HandshakeFailed:
    return HandshakeFailed("proxy_header", f"a header of PROXY protocol that cannot be used: {what}")
