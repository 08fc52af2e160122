"""Addresses as people write them: "host:port", "[v6]:port", ":port" for every interface, "unix:/path" for a socket."""

from __future__ import annotations

import ipaddress

MAX_PORT = 65535
UNIX = "unix:"
"""What the address of a Unix socket starts with; an absolute path follows."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port; raises ValueError with what is wrong."""
    if "://" in address:
        raise ValueError(f"{address!r} is a URL; write HOST:PORT")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError(f"{address!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{address!r}: write an IPv6 address in brackets, [::1]:{port}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The address that `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(address: str) -> bool:
    """True if only this host can connect to what listens there."""
    if address.startswith(UNIX):
        return True
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def peer_and_host(name: object) -> tuple[str, str]:
    """Where a peer is, with its port and without, from the name that its socket gives."""
    if isinstance(name, tuple):
        return join_address(str(name[0]), int(name[1])), str(name[0])
    return str(name), str(name)
