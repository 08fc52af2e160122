"""The receiver listens before it imports the rest of itself: it costs a tenth of its start.

Forwarders whose link a restart has cut then wait in the kernel's queue, for a moment, instead of being refused. What is
not clear here (`${NAME}`, names of hosts, workers, which share ports), and whatever is wrong, is left to the receiver.
"""

from __future__ import annotations

import contextlib
import socket
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streams import handed
from streams.addresses import split_address

BACKLOG = 1024
_CONFIG = ("-c", "--config")


def listen(arguments: Sequence[str]) -> None:
    """Listen on the configured addresses of `logreceiver run ARGUMENTS`."""
    if any(each.startswith(("--workers", "--help", "-h")) for each in arguments):
        return
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        for listener in tomllib.loads(config_path(arguments).read_text())["listener"]:
            _listen_on(listener["address"])


def config_path(arguments: Sequence[str]) -> Path:
    """As the command line gives it."""
    found = "logreceiver.toml"
    for number, each in enumerate(arguments):
        if each in _CONFIG:
            found = arguments[number + 1] if number + 1 < len(arguments) else ""
        elif each.startswith("--config="):
            found = each.removeprefix("--config=")
        elif each.startswith("-c"):
            found = each.removeprefix("-c")
    return Path(found)


def _listen_on(address: str) -> None:
    host, port = split_address(address)
    if port:
        for family, name in _numeric(host, port):
            with contextlib.suppress(OSError):
                handed.hold(socket.create_server(name, family=family, backlog=BACKLOG))


def _numeric(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, Any]]:
    """Where a numeric host listens, or no host, which is every interface. DNS may be slow: nothing for a name."""
    with contextlib.suppress(socket.gaierror):
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host.encode() or None, port, type=socket.SOCK_STREAM, flags=flags)
        for family, _, _, _, name in found:
            yield family, name
