"""Returns free pages of the spool's file to the file system: all while the spool is idle, some while it is busy.

A file created in version 2 can return any number of pages (auto_vacuum = INCREMENTAL). A file upgraded from version 1
cannot: it is rewritten once (VACUUM) when it is nearly empty, and is then like a new file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from logfwd.spool.schema import PAGE_BYTES

KEEP_FREE_BYTES = 16 * 1024 * 1024
"""Free pages that stay in the file, for later batches; fewer on a small disk, where the log needs the room."""
STEP_BYTES = 1024 * 1024
"""Freed in one transaction, so that a commit that arrives meanwhile waits only milliseconds."""
BUSY_SECONDS = 1.0
"""While commits keep coming, which may be for ever, one step is taken in this time."""
REWRITE_BYTES = 4 * 1024 * 1024
"""An upgraded file is rewritten when no more than this of it is in use."""


def reusable_bytes(connection: sqlite3.Connection) -> int:
    """Free room inside the file."""
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages * PAGE_BYTES


class Shrinker:
    """Shrinks the file of one connection, step by step."""

    def __init__(self, connection: sqlite3.Connection, keep_free_bytes: int = KEEP_FREE_BYTES) -> None:
        self._connection, self._keep_free_bytes = connection, keep_free_bytes
        self.is_due = True
        """False if nothing was left to do after the last commit."""
        self.reusable_bytes = 0
        self._stepped_at = time.monotonic()

    def look_again(self) -> None:
        """Call after a commit: there may be more free pages."""
        self.is_due = True

    def is_step_due(self) -> bool:
        """True if one step should be taken although commits keep coming."""
        return self.is_due and time.monotonic() >= self._stepped_at + BUSY_SECONDS

    def shrink(self, until: Callable[[], bool]) -> None:
        """Return pages until few are free or `until` says that other work waits. A full disk ends it silently."""
        self.is_due, self._stepped_at = False, time.monotonic()
        try:
            smaller = self._ask("auto_vacuum") == 0 and self._rewrite()
            while (free := reusable_bytes(self._connection)) > self._keep_free_bytes and self._ask("auto_vacuum") != 0:
                pages = min(free - self._keep_free_bytes, STEP_BYTES) // PAGE_BYTES + 1
                # execute() would free a single page: it steps through a statement once
                self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
                smaller = True
                if until():
                    self.is_due = True
                    break
            if smaller:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise
        self.reusable_bytes = reusable_bytes(self._connection)

    def _rewrite(self) -> bool:
        used = self._ask("page_count") - self._ask("freelist_count")
        if used * PAGE_BYTES > REWRITE_BYTES:
            return False
        self._connection.executescript("PRAGMA temp_store = MEMORY; PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
        self._connection.execute("DELETE FROM meta WHERE key = 'roots'")
        return True

    def _ask(self, pragma: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {pragma}").fetchone()
        return int(value)
