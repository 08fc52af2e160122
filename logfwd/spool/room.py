"""Room on the disk of a spool, and a reserve file that is released when there is none.

SQLite needs room even to delete rows. So a full disk would keep a spool from draining, if the reserve could not be
deleted first; it is recreated as soon as the disk has room again. What the file system reports is not all: a quota may
leave less. So if the reserve cannot be recreated, there is no room, either.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import structlog

from logfwd.spool.file import FULL_ERRORS, free_bytes, total_bytes
from logfwd.spool.shrink import KEEP_FREE_BYTES
from streams.config.units import MIB
from streams.errors import SpoolError
from streams.files import open_own

RESERVE_BYTES, SMALL_RESERVE_BYTES = 16 * MIB, 3 * MIB
"""A reserve has to be larger than the write-ahead log: to open a spool, what is in its log is written to its file."""
RESERVE_PARTS, FREE_PARTS, KEPT_PARTS = 20, 4, 16
"""The reserve takes the 20th part of a small disk, batches leave a quarter of it free, and a spool keeps a 16th."""
SMALL_DISK_BYTES = 128 * MIB
"""Here only one batch at a time is written, so that the log stays short."""
RESERVE_RETRY_SECONDS = 5.0
"""Pause between attempts to recreate a released reserve."""
LOG_GROWTH_BYTES = 4 * MIB
"""Room that the write-ahead log may need even when the file itself has free pages to reuse."""
LOOK_SECONDS = 0.05
"""How long a reading of the disk's free space is used; far less than the reserve is written in that time."""

log = structlog.get_logger("logfwd.spool")


class Room:
    """The reserve of one spool, and whether its disk has room for batches."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._reserve = spool.with_suffix(".reserve")
        self._total_bytes = SMALL_DISK_BYTES
        self._refused = False
        """The file system had room, but not for the reserve."""
        self._tried_at = 0.0
        self._looked_at = 0.0
        self._is_enough = True

    @property
    def is_small(self) -> bool:
        """Whether the file system is a small one, as of the last look for the reserve."""
        return self._total_bytes < SMALL_DISK_BYTES

    @property
    def reusable_bytes_kept(self) -> int:
        """How much of the spool's file may stay free for later batches."""
        return min(KEEP_FREE_BYTES, self._total_bytes // KEPT_PARTS) if self.is_small else KEEP_FREE_BYTES

    def is_enough(self, reusable_bytes: int) -> bool:
        """False when the file system is so full that the spool may only drain. `reusable_bytes`: free in its file."""
        now = time.monotonic()
        if now >= self._looked_at + LOOK_SECONDS or self.is_small:
            if self._refused:
                self.remake_reserve()
            try:
                free = free_bytes(self._spool)
            except OSError as error:
                raise SpoolError(f"{self._spool}: its file system does not answer: {error}") from error
            least = min(2 * RESERVE_BYTES, self._total_bytes // FREE_PARTS)
            self._is_enough = free > min(LOG_GROWTH_BYTES, least) and free + reusable_bytes > least
            self._looked_at = now
        return self._is_enough and not self._refused

    def make_reserve(self) -> None:
        """Create the reserve if it is not there and the disk has room for it."""
        self._tried_at = time.monotonic()
        try:
            self._total_bytes = total_bytes(self._spool)
            size = min(RESERVE_BYTES, max(self._total_bytes // RESERVE_PARTS, SMALL_RESERVE_BYTES))
            if not self._reserve.exists() and free_bytes(self._spool) > (2 if self.is_small else 4) * size:
                with os.fdopen(open_own(self._reserve, os.O_WRONLY), "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            self._refused = False
        except OSError as error:
            self._refused = error.errno in FULL_ERRORS
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
