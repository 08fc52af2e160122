"""Sockets handed over to a program, as a service manager does it (sd_listen_fds(3))."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_LAUNCH = (
    "import os, sys; number = int(sys.argv[1]); os.dup2(number, 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES=sys.argv[3]);"
    "os.execv(sys.argv[4], sys.argv[4:])"
)


def handing_over(descriptor: int, argv: Sequence[str], *, count: str = "1", names: str = "links") -> list[str]:
    """The command that starts another one with an inherited descriptor as its first; LISTEN_FDS and LISTEN_FDNAMES."""
    return [sys.executable, "-c", _LAUNCH, str(descriptor), count, names, *argv]
