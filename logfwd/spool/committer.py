"""The spool's thread: it alone writes to the file, and commits everything that was handed in meanwhile together.

Notes are committed in the order in which they were handed in; a group is a prefix of them. After any error in a commit
its outcome is unknown: `broken` is set, every later commit fails with the same error, and nothing more is written. The
thread lives until it is stopped, whatever happens in it: nobody waits for an answer that never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from logfwd.spool.file import close_unfinished, describe
from logfwd.spool.notes import Notes
from logfwd.spool.room import Room
from logfwd.spool.shrink import Shrinker, reusable_bytes
from streams.errors import SpoolCorrupt, SpoolError

log = structlog.get_logger("logfwd.spool")

IDLE_SECONDS = 1.0
"""The file is shrunk when nothing has been handed in for this long."""

DIES_AT = "LOGFWD_TEST_DIES_AT_COMMIT"
"""For tests alone: with "before 3" or "after 3" in this variable the process kills itself there, at COMMIT 3.

What is handed in is committed one by one then, so that a number means the same however fast the disk is."""

T = TypeVar("T")

_Entry = tuple[Notes, asyncio.Future[None] | None]
"""Notes, and the future to complete when they are on disk."""


class _Question(msgspec.Struct, frozen=True):
    """Something to read, after everything that was handed in before."""

    ask: Callable[[sqlite3.Connection], object]
    answered: asyncio.Future[Any]


class Committer:
    """Owns the connection that writes, from `start` to `stop`. The event loop calls; the thread answers by futures."""

    def __init__(self, path: Path, room: Room) -> None:
        self._broken: SpoolError | None = None
        self.reusable_bytes = 0
        """Free pages of the file, as of the last commit."""
        self._path, self._room = path, room
        self._queue: queue.SimpleQueue[_Entry | _Question | None] = queue.SimpleQueue()
        """In the order of the calls; None ends the thread. Unbounded: callers wait for their futures."""
        self._dies_at = os.environ.get(DIES_AT)
        self._commits = 0
        """Counted for `DIES_AT` alone."""
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._has_broken: asyncio.Event

    @property
    def broken(self) -> SpoolError | None:
        """The first error. Set by any thread, never cleared: the file has to be opened again."""
        return self._broken

    @broken.setter
    def broken(self, error: SpoolError) -> None:
        if self._broken is None:
            self._broken = error
            self._loop.call_soon_threadsafe(self._has_broken.set)

    async def until_broken(self) -> None:
        """Wait for the first error, which may come while nobody waits for a commit."""
        await self._has_broken.wait()

    def start(self, connection: sqlite3.Connection) -> None:
        """Begin to commit, from the event loop that the futures belong to."""
        self._loop, self._has_broken = asyncio.get_running_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(connection,), name=f"spool-{self._path.stem}")
        self._thread.start()

    def hand_in(self, notes: Notes, future: asyncio.Future[None] | None) -> None:
        """Commit these notes after all that were handed in before, and complete the future then."""
        self._queue.put((notes, future))

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Read, with everything in effect that was handed in before."""
        answered: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Question(question, answered))
        return answered

    def stop(self) -> None:
        """Commit what was handed in, and close the connection. Blocks."""
        self._queue.put(None)
        self._thread.join()

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self, connection: sqlite3.Connection) -> None:
        """Commit everything that is queued as one transaction, then answer questions; until stopped."""
        running, shrinker = True, Shrinker(connection, self._room.reusable_bytes_kept)
        while running:
            group: list[_Entry | _Question | None] = []
            try:
                self._gather(group, shrinker)
                self._work_off(connection, group, shrinker)
            except Exception as error:  # the top of a thread
                reason = f"{type(error).__name__}: {error}"
                log.exception("spool failed", spool=str(self._path), reason=reason)
                self.broken = SpoolError(f"{self._path}: cannot be used: {reason}")
                self._fail(group)
            running = None not in group
        if self.broken is None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("UPDATE meta SET value = '0' WHERE key = 'open'")
                connection.close()
                return
        close_unfinished(self._path, connection)

    def _work_off(
        self, connection: sqlite3.Connection, group: list[_Entry | _Question | None], shrinker: Shrinker
    ) -> None:
        entries = [entry for entry in group if isinstance(entry, tuple)]
        if entries:
            self._report(entries, self._commit(connection, entries))
            shrinker.look_again()
        # after the commit: an answer must show everything that was handed in before its question
        for question in group:
            if isinstance(question, _Question):
                self._answer(connection, question)
        if None not in group and self.broken is None and shrinker.is_step_due():
            self._shrink(shrinker, until=lambda: True)
        self._room.remake_reserve()

    def _fail(self, group: list[_Entry | _Question | None]) -> None:
        """Answer whoever has no answer yet."""
        for each in group:
            future = each.answered if isinstance(each, _Question) else each[1] if each is not None else None
            if future is not None:
                self._loop.call_soon_threadsafe(_settle, [future], self.broken)

    def _gather(self, group: list[_Entry | _Question | None], shrinker: Shrinker) -> None:
        """Wait for work and take all that is queued. The file is shrunk if there is none."""
        try:
            group.append(self._queue.get(timeout=IDLE_SECONDS if self.broken is None and shrinker.is_due else None))
        except queue.Empty:
            self._shrink(shrinker, until=lambda: not self._queue.empty())
        one_by_one = self._room.is_small or self._dies_at is not None
        while not self._queue.empty() and not (group and one_by_one):
            group.append(self._queue.get())

    def _shrink(self, shrinker: Shrinker, until: Callable[[], bool]) -> None:
        try:
            shrinker.shrink(until)
        except sqlite3.Error as error:
            self.broken = describe(self._path, error)
        self.reusable_bytes = shrinker.reusable_bytes

    def _answer(self, connection: sqlite3.Connection, question: _Question) -> None:
        error: SpoolError | None = self.broken
        answer: object = None
        if error is None:
            try:
                answer = question.ask(connection)
            except sqlite3.Error as found:
                error = self.broken = describe(self._path, found)
            except SpoolCorrupt as found:
                error = self.broken = found
        self._loop.call_soon_threadsafe(_settle, [question.answered], error, answer)

    def _commit(self, connection: sqlite3.Connection, entries: Iterable[_Entry]) -> SpoolError | None:
        if self.broken is not None:
            return self.broken
        together = Notes()
        for notes, _ in entries:
            together.add(notes)
        try:
            connection.execute("BEGIN IMMEDIATE")
            together.carry_out(connection)
            if self._dies_at is not None:
                self._die_at_commit("before")
            connection.execute("COMMIT")
            if self._dies_at is not None:
                self._die_at_commit("after")
            self.reusable_bytes = reusable_bytes(connection)
        except sqlite3.Error as error:
            self.broken = describe(self._path, error)
            if not isinstance(self.broken, SpoolCorrupt):
                self._room.release_reserve()  # now, so that the next open has room to delete rows in
            return self.broken
        return None

    def _die_at_commit(self, moment: str) -> None:
        assert self._dies_at is not None
        self._commits += moment == "before"
        if self._dies_at == f"{moment} {self._commits}":
            os.kill(os.getpid(), signal.SIGKILL)

    def _report(self, entries: list[_Entry], error: SpoolError | None) -> None:
        futures = [future for _, future in entries if future is not None]
        if futures:
            self._loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: Iterable[asyncio.Future[Any]], error: SpoolError | None, result: object = None) -> None:
    for future in futures:
        if future.done():  # its owner was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
