"""Sockets handed over to a program, as a service manager does it."""

from __future__ import annotations

LAUNCH = (
    "import os, sys; number = int(sys.argv[1]); os.dup2(number, 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES=sys.argv[3]);"
    "os.execv(sys.executable, [sys.executable, '-c', sys.argv[4]])"
)
"""As a service manager starts a program: descriptor, LISTEN_FDS, LISTEN_FDNAMES, what it runs."""
