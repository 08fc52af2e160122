"""Host names into addresses, on threads of their own: a resolver that hangs holds up neither the loop nor a stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from typing import Any

AddressInfo = tuple[Any, ...]
"""Family, type, protocol, canonical name and socket address, as getaddrinfo gives them."""

_lock = threading.Lock()
_under_way: dict[tuple[str, int], Future[list[AddressInfo]]] = {}
"""By host and port: who asks for the same meanwhile waits for the same answer, so that hanging threads stay few."""


async def addresses(host: str, port: int) -> list[AddressInfo]:
    """All TCP addresses of a host, in the order in which to try them. OSError or UnicodeError if there are none."""
    with contextlib.suppress(socket.gaierror):
        return _resolve(host, port, socket.AI_NUMERICHOST)  # needs no resolver
    return await asyncio.wrap_future(_look_up(host, port))


def proven_name(host: str) -> str:
    """What a certificate says of a host: its name without the dot of the root, its address without a zone."""
    if ":" in host:
        return host.partition("%")[0]
    return host[:-1] if host.endswith(".") else host


def _look_up(host: str, port: int) -> Future[list[AddressInfo]]:
    with _lock:
        if (known := _under_way.get((host, port))) is not None:
            return known
        answer = _under_way[host, port] = Future()
        answer.set_running_or_notify_cancel()  # else the first who gives up would take it from the others
    threading.Thread(target=_answer, args=(answer, host, port), name="names", daemon=True).start()
    return answer


def _answer(answer: Future[list[AddressInfo]], host: str, port: int) -> None:
    try:
        found = _resolve(host, port)
    except (OSError, UnicodeError) as error:  # goes to whoever asked
        _settle(host, port)
        answer.set_exception(error)
    else:
        _settle(host, port)
        answer.set_result(found)


def _settle(host: str, port: int) -> None:
    """Whoever asks from now on gets a new answer."""
    with _lock:
        del _under_way[host, port]


def _resolve(host: str, port: int, flags: int = 0) -> list[AddressInfo]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
