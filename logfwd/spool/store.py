"""Batches and source positions on disk: one SQLite file per original stream, its twins' rows in it.

What is committed here survives kill -9 and power loss (WAL, synchronous=FULL). One thread (committer.py) owns the
connection and commits everything that was handed in while the previous commit was running (group commit). Notes are
committed in the order in which they were handed in; a group is a prefix of them. Deletions for acknowledged batches may
ride along with a later commit: losing such a deletion costs one question at the next start, never a record.

After any error in a commit its outcome is unknown: the spool is broken, every waiting commit fails, and the owner
opens the file again. A full disk must not stop the spool from draining, but SQLite needs room even to delete rows: so a
reserve file is deleted first, and the next open has room to drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

import structlog

from logfwd.sources.keys import Key
from logfwd.sources.position import Position
from logfwd.spool.backlog import Backlog
from logfwd.spool.beyond import Segment
from logfwd.spool.blobs import Blobs
from logfwd.spool.committer import Committer, T
from logfwd.spool.file import Contents, close_unfinished, describe, has_log, install, load, read_key, writer
from logfwd.spool.keys import BUDGET_SHARE, Keys
from logfwd.spool.notes import Notes
from logfwd.spool.room import Room
from logfwd.spool.rows import Row, Totals
from logfwd.spool.salvage import replace_damaged
from logfwd.spool.schema import beside
from logfwd.spool.shrink import reusable_bytes
from logfwd.spool.waiting import Waiting, read_segment
from streams.errors import SpoolCorrupt, SpoolError

RIDE_ALONG_SECONDS = 0.2
"""Longest that a deletion waits for another commit to ride along with."""
EXPIRY_SECONDS = 60.0
"""Pause between deletions of expired positions."""

log = structlog.get_logger("logfwd.spool")


class Spool:
    """Opens a spool file, returns its contents, commits notes. Use it with `async with`."""

    def __init__(self, path: Path, *, definition: str = "") -> None:
        """`definition`: the original stream and its twins as JSON, stored so that a removed stream can be drained."""
        self.path = path
        self.definition = definition
        """As given; without one, the last one that was stored."""
        self.positions: dict[str, Position] = {}
        self.waiting: Mapping[str, Waiting] = {}
        """What waited in the file when it was opened, by stream."""
        self.blobs = Blobs()
        self.keys = Keys()
        self.forwarder_id = ""
        self.repeats_possible: set[str] = set()
        """Streams whose records may be stored twice because part of this spool was lost before it was opened."""
        self.lost_records: Counter[str] = Counter()
        """Number of records lost with that part, by stream."""
        self.on_read: dict[str, Callable[[], None]] = {}
        """Called when more of a stream's batches are in memory, or when they cannot be read."""
        self._backlogs: dict[str, Backlog] = {}
        self._contents = Contents()
        """What was in the file when it was opened; `backlog` hands it out by stream."""
        self._suspect = beside(path, ".suspect")
        """Exists if the file was found damaged while it was in use: the next open replaces it."""
        self._room = Room(path)
        self._committer = Committer(path, self._room)
        self._trimming: asyncio.Future[None] | None = None
        """The commit that deletes old keys: no other deletion begins until it is done."""
        self._expired_at = 0.0
        """Wall-clock time of the last deletion of expired positions."""
        self._has_expiring_positions = False
        self._riders: Notes | None = None
        """Deletions that wait for a commit to ride along with."""
        self._ride_timer: asyncio.TimerHandle | None = None
        self._closed: SpoolError | None = None
        """Set when the block is left: commits fail from then on instead of waiting for a thread that has ended."""
        self._loop: asyncio.AbstractEventLoop
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"spool-read-{path.stem}")
        """A thread and a connection of their own for payloads: a long read does not hold up commits."""
        self._read_connection: sqlite3.Connection | None = None

    # -- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Spool:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._committer.start(connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ride_timer is not None:
            self._ride_timer.cancel()
        if self._riders is not None and self._committer.broken is None:
            self._committer.hand_in(self._riders, None)
        self._closed = SpoolError(f"{self.path}: is closed")  # its thread answers nothing that is handed in from now on
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reader.shutdown()
        if self._read_connection is not None:
            self._read_connection.close()
        self._committer.stop()
        if isinstance(self._committer.broken, SpoolCorrupt):
            with contextlib.suppress(OSError):
                self._suspect.write_text(str(self._committer.broken))

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            connection = self._open_or_replace()
        except SpoolError as error:
            if not isinstance(error, SpoolCorrupt):
                self._room.release_reserve()
            raise
        self.forwarder_id, self.positions = self._contents.meta["forwarder_id"], self._contents.positions
        self.definition = self.definition or self._contents.meta.get("definition", "")
        self.keys, self.waiting = self._contents.keys, self._contents.waiting
        for waiting in self.waiting.values():  # of every stream, before any is changed: they share payloads
            self.blobs.adopt(waiting.rows, waiting.beyond)
        self.blobs.start_after(self._contents.last_row, self._contents.last_blob)
        self._room.make_reserve()
        return connection

    def _open_or_replace(self) -> sqlite3.Connection:
        """Open the file; if it is damaged, or was found damaged when last used, replace it first."""
        try:
            if self._suspect.is_file():
                raise SpoolCorrupt(self._suspect.read_text())
            return self._open_file()
        except SpoolCorrupt as error:
            salvaged = replace_damaged(self.path, str(error), self._suspect)
            self.repeats_possible |= salvaged.repeats_possible
            self.lost_records += salvaged.lost
            return self._open_file()

    def _open_file(self) -> sqlite3.Connection:
        if (aside := install(self.path)) is not None:
            log.error(
                "damaged spool set aside",
                spool=str(self.path),
                kept_as=str(aside),
                reason="finished a replacement that a crash had interrupted",
            )
        log_there = has_log(self.path)  # looked at first: opening creates one
        connection = writer(self.path)
        try:
            self._contents = load(self.path, connection)
            if self._contents.meta.get("open") == "1" and not log_there:
                self._log_was_lost()
            self._bring_up_to_date(connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._committer.reusable_bytes = reusable_bytes(connection)
        except sqlite3.Error as error:
            close_unfinished(self.path, connection)
            raise describe(self.path, error, opening=True) from error
        except BaseException:
            close_unfinished(self.path, connection)
            raise
        return connection

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        """Mark the file as open, store the definition, and delete positions that have expired."""
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('open', '1')")
        if self.definition and self.definition != self._contents.meta.get("definition"):
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('definition', ?)", (self.definition,))
        now, positions = time.time(), self._contents.positions
        for key in [key for key, held in positions.items() if held.expires is not None and held.expires <= now]:
            connection.execute("DELETE FROM positions WHERE key = ?", (key,))
            del positions[key]
        self._has_expiring_positions = any(position.expires is not None for position in positions.values())

    def _log_was_lost(self) -> None:
        """A spool marked open must have a write-ahead log next to it; without one, the file is an older state."""
        streams = {self.path.stem, *self._contents.totals}
        for stream in streams:
            self._contents.totals.setdefault(stream, Totals()).resets += 1
        self.repeats_possible |= streams
        log.error(
            "write-ahead log missing",
            reason="continuing from an older state of the spool",
            spool=str(self.path),
            lost=f"{self.path}-wal",
            may_be_stored_twice=sorted(streams),
        )

    # -- contents ---------------------------------------------------------------------------------------------

    def keep_positions_of(self, source: str) -> None:
        """Drop the positions of other kinds of sources: the stream had one before, and it will not go on there."""
        dropped = {key: each.source for key, each in self.positions.items() if each.source != source}
        if not dropped:
            return
        self.positions = {key: each for key, each in self.positions.items() if key not in dropped}
        notes = Notes()
        notes.put_positions({}, dropped)
        self.ride_along(notes)
        log.warning(
            "positions dropped",
            spool=str(self.path),
            sources=sorted(set(dropped.values())),
            positions=len(dropped),
            source=source,
        )

    def backlog(self, stream: str, *, max_bytes: int, drops_oldest: bool, max_batches: int = sys.maxsize) -> Backlog:
        """One stream's share of what was read when the file was opened."""
        backlog = Backlog(stream, self.blobs, max_bytes, drops_oldest, max_batches)
        if stream == self.path.stem:
            backlog.keys, self.keys.max_bytes = self.keys, max_bytes // BUDGET_SHARE
        backlog.totals = self._contents.totals.get(stream, Totals())
        for owner, run in self._contents.runs:
            if owner == stream:
                backlog.runs[run.number] = run
                backlog.last_run_number = run.number
        if (waiting := self.waiting.get(stream)) is None:
            self.blobs.adopt((), backlog.beyond)
        else:
            backlog.adopt(waiting.rows, waiting.beyond)
        backlog.dead_letters.byte_count = self._contents.dead_letter_bytes.get(stream, 0)
        self._backlogs[stream] = backlog
        return backlog

    def _read_on(self) -> None:
        """Read more batches of the streams that have few left in memory."""
        for backlog in self._backlogs.values():
            if (segment := backlog.next_segment()) is not None:
                answer = self._committer.ask(partial(read_segment, stream=backlog.stream, segment=segment))
                answer.add_done_callback(partial(self._take, backlog, segment))

    def _take(self, backlog: Backlog, segment: Segment, answer: asyncio.Future[list[Row]]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            try:
                backlog.take(segment, answer.result())
                self._read_on()  # it may have been dropped meanwhile
            except SpoolCorrupt as error:
                self._committer.broken = SpoolCorrupt(f"{self.path}: {error}")
        if (on_read := self.on_read.get(backlog.stream)) is not None:
            on_read()

    async def payload(self, row: Row) -> bytes:
        """A batch's bytes, from memory or from the file."""
        if row.payload is not None:
            return row.payload
        return await self._loop.run_in_executor(self._reader, self._read_blob, row.blob)

    def _read_blob(self, blob: int) -> bytes:
        try:
            if self._read_connection is None:
                self._read_connection = sqlite3.connect(self.path, check_same_thread=False)
            found = self._read_connection.execute("SELECT payload FROM blobs WHERE id = ?", (blob,)).fetchone()
        except sqlite3.Error as error:
            self._committer.broken = broken = describe(self.path, error)
            raise broken from error
        if found is None or not isinstance(found[0], bytes):
            self._committer.broken = broken = SpoolCorrupt(f"{self.path}: the payload {blob} is missing")
            raise broken
        payload: bytes = found[0]
        return payload

    def has_disk_room(self) -> bool:
        """False when the file system is so full that the spool may only drain."""
        return self._room.is_enough(self._committer.reusable_bytes)

    # -- committing --------------------------------------------------------------------------------------------

    def commit(self, notes: Notes) -> asyncio.Future[None]:
        """Hand notes in; the future completes when they are on disk. They are committed in the order of the calls."""
        future: asyncio.Future[None] = self._loop.create_future()
        if error := self._committer.broken or self._closed:
            future.set_exception(error)
            return future
        if self._riders is not None:  # they were written before these notes, so they are committed before them
            self._committer.hand_in(self._riders, None)
            self._riders = None
        if self.keys or self._has_expiring_positions or notes.has_expiring_positions:
            self._expire(notes, future)
        self._committer.hand_in(notes, future)
        self._read_on()  # after the notes, which may hold what is to be read
        return future

    def _expire(self, notes: Notes, future: asyncio.Future[None]) -> None:
        """Add the deletion of old keys, unless an earlier one is still being committed, and at times of positions."""
        now = time.time()
        if (self._trimming is None or self._trimming.done()) and self.keys.trim(now, notes):
            self._trimming = future
        self._has_expiring_positions |= notes.has_expiring_positions
        if self._has_expiring_positions and abs(now - self._expired_at) >= EXPIRY_SECONDS:
            self._expired_at = now
            notes.delete_expired_positions(now)

    async def key(self, key_hash: bytes) -> Key | None:
        """How much of a request is in the spool, with all notes handed in before; None if the key is unknown."""
        row_id = self.keys.find(key_hash)
        if row_id is None:
            return None
        key = await self.ask(lambda connection: read_key(connection, row_id, key_hash))
        return None if key is None or key.expires <= time.time() else key

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Read something, with all notes in effect that were handed in before."""
        if error := self._committer.broken or self._closed:
            raise error
        return await self._committer.ask(question)

    async def raise_when_broken(self, until: asyncio.Future[None]) -> None:
        """Raise the error that breaks the spool as soon as there is one, or return when `until` is done."""
        broken = asyncio.ensure_future(self._committer.until_broken())
        try:
            await asyncio.wait({broken, until}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            broken.cancel()
        self.raise_if_broken()

    def raise_if_broken(self) -> None:
        """Raise the error that broke the spool, if any: a commit that rode along has no future to report it."""
        if self._committer.broken is not None:
            raise self._committer.broken

    def ride_along(self, notes: Notes) -> None:
        """Hand in notes that may wait a moment for another commit: deletions of acknowledged batches."""
        if self._riders is None:
            self._riders = notes
        else:
            self._riders.add(notes)  # in the order of writing: of two notes on one run the later counts
        if self._ride_timer is None:
            self._ride_timer = self._loop.call_later(RIDE_ALONG_SECONDS, self._send_riders)
        self._read_on()

    def _send_riders(self) -> None:
        self._ride_timer = None
        if self._riders is not None and self._committer.broken is None:
            self._committer.hand_in(self._riders, None)
            self._riders = None
