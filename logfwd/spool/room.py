"""Room on the disk of a spool, and a reserve file that is released when there is none.

SQLite needs room even to delete rows. So a full disk would keep a spool from draining, if the reserve could not be
deleted first; it is recreated as soon as the disk has room again.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import structlog

from logfwd.spool.file import free_bytes
from streams.errors import SpoolError

RESERVE_BYTES = 16 * 1024 * 1024
RESERVE_RETRY_SECONDS = 5.0
"""Pause between attempts to recreate a released reserve."""
LOG_GROWTH_BYTES = 4 * 1024 * 1024
"""Room that the write-ahead log may need even when the file itself has free pages to reuse."""
LOOK_SECONDS = 0.05
"""How long a reading of the disk's free space is used; far less than the reserve is written in that time."""

log = structlog.get_logger("logfwd.spool")


class Room:
    """The reserve of one spool, and whether its disk has room for batches."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._reserve = spool.with_suffix(".reserve")
        self._tried_at = 0.0
        self._looked_at = 0.0
        self._is_enough = True

    def is_enough(self, reusable_bytes: int) -> bool:
        """False when the file system is so full that the spool may only drain. `reusable_bytes`: free in its file."""
        now = time.monotonic()
        if now >= self._looked_at + LOOK_SECONDS:
            try:
                free = free_bytes(self._spool)
            except OSError as error:
                raise SpoolError(f"{self._spool}: its file system does not answer: {error}") from error
            self._is_enough = free > LOG_GROWTH_BYTES and free + reusable_bytes > 2 * RESERVE_BYTES
            self._looked_at = now
        return self._is_enough

    def make_reserve(self) -> None:
        """Create the reserve if it is not there and the disk has room for it."""
        self._tried_at = time.monotonic()
        try:
            if not self._reserve.exists() and free_bytes(self._spool) > 4 * RESERVE_BYTES:
                with self._reserve.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)
            log.warning("disk reserve unavailable", spool=str(self._spool), error=str(error))

    def remake_reserve(self) -> None:
        """The same, now and then."""
        if not os.path.lexists(self._reserve) and time.monotonic() > self._tried_at + RESERVE_RETRY_SECONDS:
            self.make_reserve()

    def release_reserve(self) -> None:
        """Delete the reserve, so that the next open has room to drain the spool."""
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return
        except OSError as error:  # such as a file system that has become read-only
            log.warning("disk reserve unavailable", spool=str(self._spool), error=str(error))
        else:
            log.warning("disk reserve released", reason="the spool needs room to drain", spool=str(self._spool))
