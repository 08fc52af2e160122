"""Batches and source positions on disk: one SQLite file per original stream, its twins' rows in it.

What is committed here survives kill -9 and power loss (WAL, synchronous=FULL). One thread owns the connection and
commits whatever has gathered while the last commit was under way (group commit). Notes are committed in the order
they were handed in; a group holds a prefix of them. Acknowledgements may ride along with a later commit: losing
their deletion costs one question at the next start, never a record.

After any error in a commit its outcome is unknown: the spool is broken, every waiting commit fails, and the owner
opens the file anew. A full disk must not stop the draining, though SQLite needs room even to delete: a reserve file
is given up first, so that the next open can drain.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from logfwd.backlog import Backlog, Blobs, Row, Run, Totals
from logfwd.sources import Mark
from streams.errors import SpoolCorrupt, SpoolError, SpoolFull

SCHEMA_VERSION = 1
RESERVE_BYTES = 16 * 1024 * 1024
PAGE_BYTES = 16 * 1024
RIDE_ALONG_SECONDS = 0.2
"""Longest that a deletion waits for another commit to ride with."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    stream TEXT, number INTEGER, cluster_id TEXT, topic TEXT, topic_id TEXT, partition INTEGER, producer_id INTEGER,
    producer_epoch INTEGER, grant BLOB, next_sequence INTEGER, last_acknowledged_sequence INTEGER,
    PRIMARY KEY (stream, number));
CREATE TABLE blobs (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, blob INTEGER, record_count INTEGER, size INTEGER,
    base_sequence INTEGER);
CREATE TABLE positions (
    key TEXT PRIMARY KEY, offset INTEGER, tail_bytes INTEGER, tail_hash BLOB, detail BLOB);
CREATE TABLE totals (
    stream TEXT PRIMARY KEY, accepted INTEGER, invalid INTEGER, acknowledged INTEGER, dropped INTEGER,
    dead_lettered INTEGER, resets INTEGER);
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, code TEXT, text TEXT, at_ms INTEGER, record_count INTEGER,
    payload BLOB);
"""

log = structlog.get_logger("logfwd.spool")


class Notes:
    """The statements of one transaction, with the values they had when they were noted."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, tuple[Any, ...]]] = []

    def _note(self, sql: str, *values: object) -> None:
        self.statements.append((sql, values))

    def put_blob(self, blob: int, payload: bytes) -> None:
        self._note("INSERT INTO blobs VALUES (?, ?)", blob, payload)

    def delete_blob(self, blob: int) -> None:
        self._note("DELETE FROM blobs WHERE id = ?", blob)

    def put_row(self, stream: str, row: Row) -> None:
        self._note(
            "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)",
            row.id, stream, row.run, row.blob, row.record_count, row.size, row.base_sequence,
        )  # fmt: skip

    def delete_row(self, row: Row) -> None:
        self._note("DELETE FROM batches WHERE id = ?", row.id)

    def put_run(self, stream: str, run: Run) -> None:
        self._note(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            stream, run.number, run.cluster_id, run.topic, run.topic_id, run.partition, run.producer_id,
            run.producer_epoch, run.grant, run.next_sequence, run.last_acknowledged_sequence,
        )  # fmt: skip

    def delete_run(self, stream: str, run: Run) -> None:
        self._note("DELETE FROM runs WHERE stream = ? AND number = ?", stream, run.number)

    def put_totals(self, stream: str, totals: Totals) -> None:
        self._note(
            "INSERT OR REPLACE INTO totals VALUES (?, ?, ?, ?, ?, ?, ?)",
            stream, totals.accepted, totals.invalid, totals.acknowledged, totals.dropped, totals.dead_lettered,
            totals.resets,
        )  # fmt: skip

    def put_dead_letter(self, stream: str, row: Row, code: str, text: str) -> None:
        self._note(
            "INSERT INTO dead_letters (stream, run, code, text, at_ms, record_count, payload) "
            "SELECT ?, ?, ?, ?, ?, ?, payload FROM blobs WHERE id = ?",
            stream, row.run, code, text, int(time.time() * 1000), row.record_count, row.blob,
        )  # fmt: skip

    def put_position(self, key: str, mark: Mark) -> None:
        self._note(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
            key, mark.offset, mark.tail_bytes, mark.tail_hash, mark.detail,
        )  # fmt: skip

    def delete_position(self, key: str) -> None:
        self._note("DELETE FROM positions WHERE key = ?", key)


class Spool:
    """Opens a spool file, gives back what it holds, commits notes. `async with`, or open() and close()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.positions: dict[str, Mark] = {}
        self.blobs = Blobs()
        self.forwarder_id = ""
        self._reserve = path.with_suffix(".reserve")
        self._queue: queue.SimpleQueue[tuple[Notes, asyncio.Future[None] | None] | None] = queue.SimpleQueue()
        self._riders: Notes | None = None
        self._ride_timer: asyncio.TimerHandle | None = None
        self._broken: SpoolError | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"spool-read-{path.stem}")
        self._read_connection: sqlite3.Connection | None = None

    # -- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Spool:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._thread = threading.Thread(target=self._write, args=(connection,), name=f"spool-{self.path.stem}")
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ride_timer is not None:
            self._ride_timer.cancel()
        if self._riders is not None and self._broken is None:
            self._queue.put((self._riders, None))
        self._queue.put(None)
        assert self._thread is not None
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._reader.shutdown)
        if self._read_connection is not None:
            self._read_connection.close()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            connection = self._connect()
            self._load_meta(connection)
        except sqlite3.OperationalError as error:
            self._give_up_reserve()
            raise SpoolError(f"{self.path}: cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._set_aside()
            log.error("set a damaged spool aside", spool=str(self.path), kept_as=str(aside), error=str(error))
            connection = self._connect()
            self._load_meta(connection)
        self._make_reserve()
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        os.chmod(self.path, 0o600)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            connection.close()
            raise SpoolError(
                f"{self.path}: made by a newer logfwd (spool version {version}, this one knows {SCHEMA_VERSION}); "
                "run that one, or move the file away"
            )
        if version == 0:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -4096")
        connection.execute("PRAGMA journal_size_limit = 33554432")
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        return connection

    def _load_meta(self, connection: sqlite3.Connection) -> None:
        found = dict(connection.execute("SELECT key, value FROM meta"))
        if "forwarder_id" not in found:
            found["forwarder_id"] = uuid.uuid4().hex
            connection.execute("INSERT INTO meta VALUES ('forwarder_id', ?)", (found["forwarder_id"],))
        self.forwarder_id = found["forwarder_id"]
        self.positions = {
            key: Mark(offset, tail_bytes, tail_hash, detail)
            for key, offset, tail_bytes, tail_hash, detail in connection.execute("SELECT * FROM positions")
        }
        self._stored_runs = list(connection.execute("SELECT * FROM runs ORDER BY stream, number"))
        self._stored_rows = list(
            connection.execute(
                "SELECT stream, id, run, blob, record_count, size, base_sequence FROM batches ORDER BY run, id"
            )
        )
        self._stored_totals = {stream: Totals(*rest) for stream, *rest in connection.execute("SELECT * FROM totals")}

    def _set_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def _make_reserve(self) -> None:
        try:
            if not self._reserve.exists() and free_bytes(self.path) > 4 * RESERVE_BYTES:
                with self._reserve.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            log.warning("cannot keep a reserve for a full disk", spool=str(self.path), error=str(error))

    def _give_up_reserve(self) -> None:
        if self._reserve.exists():
            self._reserve.unlink()
            log.warning("gave up the reserve so that the spool can drain", spool=str(self.path))

    # -- what it holds -----------------------------------------------------------------------------------------

    def streams(self) -> set[str]:
        """Streams that have rows here, configured or not."""
        return {row[0] for row in self._stored_rows}

    def backlog(self, stream: str, *, max_bytes: int, drops_oldest: bool) -> Backlog:
        """One stream's share of what was read at opening."""
        backlog = Backlog(stream, self.blobs, max_bytes, drops_oldest)
        backlog.totals = self._stored_totals.get(stream, Totals())
        for owner, *values in self._stored_runs:
            if owner == stream:
                run = Run(*values)
                backlog.runs[run.number] = run
                backlog.last_run_number = run.number
        for owner, *values in self._stored_rows:
            if owner == stream:
                backlog.adopt(Row(*values))
        return backlog

    async def payload(self, row: Row) -> bytes:
        """A batch's bytes, from memory or from the file."""
        if row.payload is not None:
            return row.payload
        return await self._loop.run_in_executor(self._reader, self._read_blob, row.blob)

    def _read_blob(self, blob: int) -> bytes:
        if self._read_connection is None:
            self._read_connection = sqlite3.connect(self.path, check_same_thread=False)
        try:
            found = self._read_connection.execute("SELECT payload FROM blobs WHERE id = ?", (blob,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise SpoolCorrupt(f"{self.path}: cannot read batch {blob}: {error}") from error
        if found is None:
            raise SpoolCorrupt(f"{self.path}: batch {blob} is gone")
        payload: bytes = found[0]
        return payload

    def has_disk_room(self) -> bool:
        """False when the file system is so full that only draining makes sense."""
        return free_bytes(self.path) > 2 * RESERVE_BYTES

    # -- committing --------------------------------------------------------------------------------------------

    def commit(self, notes: Notes) -> asyncio.Future[None]:
        """Hand notes in; the future is done when they are on disk. Order of calls is order on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        if self._riders is not None:
            self._queue.put((self._riders, None))
            self._riders = None
        self._queue.put((notes, future))
        return future

    def ride_along(self, notes: Notes) -> None:
        """Hand in notes that may wait a moment for another commit: what acknowledgements delete."""
        if self._riders is None:
            self._riders = notes
        else:
            self._riders.statements.extend(notes.statements)
        if self._ride_timer is None:
            self._ride_timer = self._loop.call_later(RIDE_ALONG_SECONDS, self._send_riders)

    def _send_riders(self) -> None:
        self._ride_timer = None
        if self._riders is not None and self._broken is None:
            self._queue.put((self._riders, None))
            self._riders = None

    def _write(self, connection: sqlite3.Connection) -> None:
        """The spool thread: takes what has gathered, commits it as one transaction, tells the owner."""
        running = True
        while running:
            group = [self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get())
            if None in group:
                running = False
            entries = [entry for entry in group if entry is not None]
            if entries:
                self._tell(entries, self._commit(connection, entries))
        connection.close()

    def _commit(
        self, connection: sqlite3.Connection, entries: Iterable[tuple[Notes, asyncio.Future[None] | None]]
    ) -> SpoolError | None:
        if self._broken is not None:
            return self._broken
        try:
            connection.execute("BEGIN IMMEDIATE")
            for notes, _ in entries:
                for sql, values in notes.statements:
                    connection.execute(sql, values)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._broken = self._describe(error)
            self._give_up_reserve()
            return self._broken
        return None

    def _describe(self, error: sqlite3.Error) -> SpoolError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or free_bytes(self.path) < PAGE_BYTES:
            return SpoolFull(f"{self.path}: the disk is full ({error}); free some space")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return SpoolCorrupt(f"{self.path}: {error}")
        return SpoolError(f"{self.path}: cannot be written: {error}")

    def _tell(self, entries: list[tuple[Notes, asyncio.Future[None] | None]], error: SpoolError | None) -> None:
        futures = [future for _, future in entries if future is not None]
        if futures:
            tell: Callable[[], None] = lambda: _settle(futures, error)  # noqa: E731
            self._loop.call_soon_threadsafe(tell)


def _settle(futures: Iterable[asyncio.Future[None]], error: SpoolError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def free_bytes(path: Path) -> int:
    """Room on the file system that holds a path, for an ordinary user."""
    stat = os.statvfs(path.parent)
    return stat.f_bavail * stat.f_frsize


def note_positions(notes: Notes, positions: Mapping[str, Mark], forgotten: Iterable[str]) -> None:
    """Add a source's positions to a transaction."""
    for key, mark in positions.items():
        notes.put_position(key, mark)
    for key in forgotten:
        notes.delete_position(key)
