"""Whoever reads a program's standard error, and sometimes does not: the pipe fills, and the program must not wait."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import BinaryIO

PIPE_BYTES = 4096
"""The smallest pipe that there is, so that few lines fill it."""


class LogPipe:
    """Leads what a program writes to its log file, unless it is stalled. `open` is for `Program.open_output`."""

    def __init__(self) -> None:
        self._stalled = False
        self._reads = threading.Event()
        self._reader: threading.Thread | None = None

    def open(self, path: Path) -> BinaryIO:
        """The writing end of a new pipe; what the program before had left in the old one comes first in the log."""
        if self._reader is not None:
            self._reads.set()
            self._reader.join()
        self._reads = threading.Event()
        if not self._stalled:
            self._reads.set()
        source, target = os.pipe()
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        path.touch()
        self._reader = threading.Thread(target=_copy, args=(source, path, self._reads), daemon=True)
        self._reader.start()
        return os.fdopen(target, "wb", buffering=0)

    def stall(self) -> None:
        """Read nothing until `resume`."""
        self._stalled = True
        self._reads.clear()

    def resume(self) -> None:
        self._stalled = False
        self._reads.set()


def _copy(source: int, path: Path, reads: threading.Event) -> None:
    with os.fdopen(source, "rb", buffering=0) as pipe, path.open("ab", buffering=0) as log:
        while reads.wait() and (data := pipe.read(PIPE_BYTES)):
            log.write(data)
