"""Sockets that listen before anybody serves them: opened by a program's first statements, or by a service manager.

The kernel completes connections to them, so that peers wait for an answer instead of being refused. Whoever is to
listen on an address takes what there is for it.

A service manager hands its sockets over by LISTEN_FDS (sd_listen_fds(3)) and keeps them: over a restart the port is
never closed, and whom a stopping program does not accept waits for its successor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START"""


class Handed(NamedTuple):
    """`name`: the service manager's (FileDescriptorName=), which keeps it open; empty for one of our own."""

    sock: socket.socket
    name: str


_there: list[Handed] = []


def inherit() -> None:
    """Note what a service manager has handed to this process; its children get none of it."""
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return
    for number in range(int(count)):
        descriptor, name = FIRST_DESCRIPTOR + number, names[number] if number < len(names) else ""
        try:
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
        except OSError:  # there is none, or it is something else
            continue
        _there.append(Handed(sock, name or "unknown"))


def hold(sock: socket.socket) -> None:
    """Keep a socket of our own, which listens, until somebody takes it."""
    _there.append(Handed(sock, ""))


def are_there() -> bool:
    """Whether there is anything to take."""
    return bool(_there)


def take(addresses: Iterable[Any]) -> list[Handed]:
    """The sockets that listen on one of these addresses, each as the system writes it: the path, or host and port."""
    wanted = set(addresses)
    found = [each for each in _there if _is_stream(each.sock) and _address(each.sock) in wanted]
    _there[:] = [each for each in _there if each not in found]
    return found


def drop_rest() -> list[tuple[str, str]]:
    """Close what nobody has taken: of what a service manager handed over, name and address."""
    rest, _there[:] = list(_there), []
    left = [(each.name, str(_address(each.sock))) for each in rest if each.name]
    for each in rest:
        each.sock.close()
    return left


def _is_stream(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _address(sock: socket.socket) -> Any:
    """An IPv6 address without scope and flow."""
    name = sock.getsockname()
    return name[:2] if isinstance(name, tuple) else name
