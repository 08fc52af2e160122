"""The spool's file: its tables, how it is created, opened and read, and what counts as damage.

A spool file appears complete: it is written under another name, synced, and renamed into place. So a file that is empty
or lacks a table is damaged; no crash can leave one. `install` is the only way into place and can be repeated after a
crash at any of its steps: an existing file is never overwritten, it is renamed to NAME.damaged-TIME.

No value read from a file is used before its type has been checked: a flipped byte can turn it into anything.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from logfwd.backlog import Row, Run, Totals
from logfwd.sources.position import FILE, Mark, Position
from streams.errors import SpoolCorrupt, SpoolError, SpoolFull
from streams.files import sync_directory

SCHEMA_VERSION = 1
PAGE_BYTES = 16 * 1024
TOTALS = tuple(field.name for field in fields(Totals))
"""Columns of `totals` after the stream: the fields of Totals, in their order."""

TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "runs": "stream TEXT, number INTEGER, cluster_id TEXT, topic TEXT, topic_id TEXT, partition INTEGER, "
    "producer_id INTEGER, producer_epoch INTEGER, grant BLOB, next_sequence INTEGER, "
    "last_acknowledged_sequence INTEGER, PRIMARY KEY (stream, number)",
    "blobs": "id INTEGER PRIMARY KEY, payload BLOB NOT NULL",
    "batches": "id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, blob INTEGER, record_count INTEGER, size INTEGER, "
    "base_sequence INTEGER",
    "positions": "key TEXT PRIMARY KEY, offset INTEGER, tail_bytes INTEGER, tail_hash BLOB, detail BLOB",
    "totals": ", ".join(["stream TEXT PRIMARY KEY", *(f"{name} INTEGER" for name in TOTALS)]),
    "dead_letters": "id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, code TEXT, text TEXT, at_ms INTEGER, "
    "record_count INTEGER, payload BLOB",
}
"""Names and columns. The first page of a new file is identical in every spool of a version; salvage depends on that."""

_Count = Annotated[int, Meta(ge=0)]
_Some = Annotated[int, Meta(ge=1)]
SHAPES: dict[str, Any] = {
    "meta": tuple[str, str],
    "runs": tuple[
        str, _Some, str, str, str, int, Annotated[int, Meta(ge=-1)], _Count, bytes, _Count, Annotated[int, Meta(ge=-1)]
    ],
    "batches": tuple[_Count, str, _Some, _Some, _Some, _Some, _Count | None],
    "positions": tuple[str, _Count, _Count, bytes, bytes],
    "totals": tuple[(str, *[_Count] * len(TOTALS))],  # type: ignore[misc]
    "dead_letters": tuple[_Count, str, _Some, str, str, int, _Some, bytes],
}
"""Column types of each table, with their bounds."""


@dataclass
class Contents:
    """Everything in a spool except its payloads, as read from the file."""

    meta: dict[str, str] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    runs: list[tuple[str, Run]] = field(default_factory=list)
    rows: list[tuple[str, Row]] = field(default_factory=list)
    totals: dict[str, Totals] = field(default_factory=dict)
    last_row: int = 0
    last_blob: int = 0


# -- creating --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def making(path: Path) -> Iterator[sqlite3.Connection]:
    """A new database to fill; when the block ends it is complete and synced next to `path`, ready for `install`."""
    part = beside(path, ".part")
    part.unlink(missing_ok=True)
    try:
        with clear_errors(path), contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
            part.chmod(0o600)
            _make_tables(connection)
            connection.execute("BEGIN")
            yield connection
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(SCHEMA_VERSION),))
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('forwarder_id', ?)", (uuid.uuid4().hex,))
            connection.execute("COMMIT")
        part.rename(beside(path, ".ready"))
        sync_directory(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = MEMORY")  # an unfinished file is discarded
    connection.execute("PRAGMA synchronous = FULL")
    tables = "".join(f"CREATE TABLE {name} ({columns});" for name, columns in TABLES.items())
    connection.executescript(f"BEGIN; {tables} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")


def first_page() -> bytes:
    """The first page (header and schema) of every spool of this version, apart from its counters."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make_tables(connection)
        return connection.serialize()[:PAGE_BYTES]


def install(path: Path) -> Path | None:
    """Move a file that `making` completed into place; returns the new name of the file that was there, if any."""
    ready = beside(path, ".ready")
    if not ready.exists():
        return None
    parts = [found for suffix in ("-wal", "-shm", "") if os.path.lexists(found := beside(path, suffix))]
    aside = None
    if parts:
        changed = datetime.datetime.fromtimestamp(parts[-1].lstat().st_mtime, datetime.UTC)
        aside = beside(path, f".damaged-{changed:%Y%m%dT%H%M%S.%f}")
        for part in parts:  # the log first: it must never be mistaken for the log of the new file
            part.rename(beside(aside, part.name.removeprefix(path.name)))
    sync_directory(path.parent)
    ready.rename(path)
    sync_directory(path.parent)
    return aside


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


_LOG_STARTS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"", bytes(4))
"""First bytes of a log (sqlite.org/fileformat2.html, "The Write-Ahead Log"); empty or zeros before its first sync."""

# -- opening ---------------------------------------------------------------------------------------------------


def writer(path: Path) -> sqlite3.Connection:
    """A connection that commits durably; creates the file if it does not exist."""
    if not os.path.lexists(path):
        with making(path):
            pass
        install(path)
    with clear_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _check_version(path, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -4096")
            connection.execute("PRAGMA journal_size_limit = 33554432")
        except BaseException:
            connection.close()
            raise
    return connection


def has_log(path: Path) -> bool:
    """True if there is a file next to the spool that starts like a write-ahead log."""
    try:
        with beside(path, "-wal").open("rb") as file:
            start = file.read(4)
    except OSError:
        return False
    return start in _LOG_STARTS


def reader(path: Path) -> sqlite3.Connection:
    """A read-only connection; works while a forwarder uses the file."""
    with clear_errors(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            _check_version(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a newer version, but only if the header and `meta` agree on it: either alone may be a flipped byte."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    witness = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if version == 0 or witness != (str(version),):
        raise SpoolCorrupt(f"{path}: version {version} is not valid")
    raise SpoolError(
        f"{path}: made by a newer logfwd (spool version {version}, this one knows {SCHEMA_VERSION}); "
        "run that one, or move the file away"
    )


def load(path: Path, connection: sqlite3.Connection) -> Contents:
    """Everything except payloads; SpoolCorrupt for values that no spool can contain."""
    found = Contents()
    with clear_errors(path):
        found.meta = dict(rows(connection, "meta"))
        found.positions = {key: Position(FILE, Mark(*rest).encode()) for key, *rest in rows(connection, "positions")}
        found.runs = [(stream, Run(*rest)) for stream, *rest in rows(connection, "runs", "ORDER BY stream, number")]
        found.rows = [
            (stream, Row(id_, *rest)) for id_, stream, *rest in rows(connection, "batches", "ORDER BY run, id")
        ]
        found.totals = {stream: Totals(*rest) for stream, *rest in rows(connection, "totals")}
        connection.execute("SELECT id, stream, payload FROM dead_letters LIMIT 1").fetchall()
        found.last_row = max((row.id for _, row in found.rows), default=0)
        found.last_blob = connection.execute("SELECT coalesce(max(id), 0) FROM blobs").fetchone()[0]
    if "forwarder_id" not in found.meta:
        raise SpoolCorrupt(f"{path}: no forwarder id")
    runs = {(stream, run.number) for stream, run in found.runs}
    for stream, row in found.rows:
        if (stream, row.run) not in runs:
            raise SpoolCorrupt(f"{path}: batch {row.id} of stream {stream} belongs to no run")
    return found


_run_values = attrgetter(*(field.name for field in fields(Run)))
_totals_values = attrgetter(*TOTALS)


def run_row(stream: str, run: Run) -> tuple[Any, ...]:
    """A row of `runs`: after the stream come the fields of a Run in their order, as `load` reads them."""
    return stream, *_run_values(run)


def totals_row(stream: str, totals: Totals) -> tuple[Any, ...]:
    """A row of `totals`, likewise."""
    return stream, *_totals_values(totals)


def rows(connection: sqlite3.Connection, table: str, order: str = "") -> Iterator[tuple[Any, ...]]:
    """The rows of a table, each checked; SpoolCorrupt for one of the wrong shape."""
    for row in connection.execute(f"SELECT * FROM {table} {order}"):  # noqa: S608 — names of our own
        yield shaped(table, row)


def shaped(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row, if it has the types and bounds of its table."""
    try:
        converted: tuple[Any, ...] = msgspec.convert(row, SHAPES[table])
    except msgspec.ValidationError as error:
        raise SpoolCorrupt(f"invalid row in {table}: {error}") from error
    return converted


# -- errors ----------------------------------------------------------------------------------------------------

_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
_UNREADABLE = {266, 522}  # SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ: lost sectors, or a truncated file


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours while opening and reading, where a missing table or an odd value is damage, too."""
    try:
        yield
    except sqlite3.Error as error:
        raise describe(path, error, opening=True) from error
    except (OverflowError, UnicodeDecodeError) as error:
        raise SpoolCorrupt(f"{path}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull(f"{path}: the disk is full ({error}); free some space") from error
        raise SpoolError(f"{path}: {error}") from error


def describe(path: Path, error: sqlite3.Error, *, opening: bool = False) -> SpoolError:
    """What an SQLite error means for the spool, in one sentence."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or free_bytes(path) < PAGE_BYTES:
        return SpoolFull(f"{path}: the disk is full ({error}); free some space")
    if code in _DAMAGE or extended in _UNREADABLE:
        return SpoolCorrupt(f"{path}: {error}")
    if opening and code == 0:  # from Python's own layer, such as text that is not UTF-8
        return SpoolCorrupt(f"{path}: {error}")
    if opening and (code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY) or _is_no_file(path)):
        if code == sqlite3.SQLITE_READONLY and not os.access(path, os.W_OK):
            return SpoolError(f"{path}: cannot be written: {error}")
        return SpoolCorrupt(f"{path}: {error}")
    return SpoolError(f"{path}: cannot be {'opened' if opening else 'written'}: {error}")


def _is_no_file(path: Path) -> bool:
    """True if something other than a file is in place of the spool or of its log."""
    return any(part.exists() and not part.is_file() for part in (path, beside(path, "-wal"), beside(path, "-shm")))


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user can still write on the file system of a path."""
    stat = os.statvfs(path.parent)
    return stat.f_bavail * stat.f_frsize
