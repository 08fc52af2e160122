"""The spool's file: how it is created, opened and read, and what counts as damage.

The format, its versions and invariants are described in the package (`__init__.py`).

No value read from a file is used before its type has been checked: a flipped byte can turn it into anything.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from logfwd.sources.keys import Key
from logfwd.sources.position import Position
from logfwd.spool.first_page import has_known_header
from logfwd.spool.keys import Keys
from logfwd.spool.letters import bytes_by_stream
from logfwd.spool.rows import Run, Totals
from logfwd.spool.schema import (
    PAGE_BYTES,
    SCHEMA_VERSION,
    beside,
    insert,
    key_ids,
    make_tables,
    replace_tables,
    roots_of,
    rows,
    version_of,
)
from logfwd.spool.waiting import Waiting, read_waiting
from streams.errors import SpoolCorrupt, SpoolError, SpoolFull
from streams.files import open_own, sync_directory


class Contents(msgspec.Struct):
    """Everything in a spool except its payloads, as read from the file: of the waiting batches the first as rows."""

    meta: dict[str, str] = {}
    positions: dict[str, Position] = {}
    runs: list[tuple[str, Run]] = []
    waiting: dict[str, Waiting] = {}
    totals: dict[str, Totals] = {}
    keys: Keys = msgspec.field(default_factory=Keys)
    dead_letter_bytes: dict[str, int] = {}
    last_row: int = 0
    last_blob: int = 0


# -- creating --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def making(path: Path) -> Iterator[sqlite3.Connection]:
    """A new database to fill; when the block ends it is complete and synced next to `path`, ready for `install`."""
    part = beside(path, ".part")
    part.unlink(missing_ok=True)
    try:
        with clear_errors(path), contextlib.closing(_created(part)) as connection:
            make_tables(connection)
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


def _created(part: Path) -> sqlite3.Connection:
    """SQLite gives its other files the permissions of this one."""
    os.close(open_own(part, os.O_WRONLY | os.O_EXCL))
    return sqlite3.connect(part, isolation_level=None)


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


_LOG_STARTS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"", bytes(4))
"""First bytes of a log (sqlite.org/fileformat2.html, "The Write-Ahead Log"); empty or zeros before its first sync."""

# -- opening ---------------------------------------------------------------------------------------------------


CACHE_KIB = 256
"""SQLite's cache of an open spool: what waits is written and read in order, so that a larger one saves nothing."""


def writer(path: Path) -> sqlite3.Connection:
    """A connection that commits durably. Creates the file if it does not exist, and upgrades one of version 1."""
    if not os.path.lexists(path):
        with making(path):
            pass
        install(path)
    with clear_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            version = _check_version(path, connection)
            if not has_known_header(path):  # a wrong auto_vacuum flag makes SQLite overwrite pages that are in use
                raise SpoolCorrupt(f"{path}: the header is damaged")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Debian's SQLite overwrites what is deleted: that writes every batch twice, and a full disk could not drain
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA shrink_memory")  # what it took for a larger cache before it knew
            connection.execute("PRAGMA journal_size_limit = 33554432")
            connection.execute(f"PRAGMA wal_autocheckpoint = {log_pages(total_bytes(path))}")
            if version < SCHEMA_VERSION:
                _upgrade(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def log_pages(disk_bytes: int) -> int:
    """How long the write-ahead log may grow: SQLite's default, or a 16th of a small disk."""
    return max(min(disk_bytes // 16 // PAGE_BYTES, 1000), 16)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade a file from version 1 to version 2 in one transaction: a crash leaves either the one or the other."""
    connection.execute("BEGIN IMMEDIATE")
    positions, totals = list(rows(connection, "positions")), list(rows(connection, "totals"))
    replace_tables(connection)
    connection.executemany(insert("positions"), positions)
    connection.executemany(insert("totals"), totals)
    meta = {"version": str(SCHEMA_VERSION), "roots": json.dumps(roots_of(connection))}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
    connection.execute("COMMIT")


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


def _check_version(path: Path, connection: sqlite3.Connection) -> int:
    """The version of a file, if this program knows it.

    A version other than SCHEMA_VERSION counts only if the header and `meta` agree: either alone may be a flipped byte.
    """
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return version
    witness = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if version == 0 or witness != (str(version),):
        raise SpoolCorrupt(f"{path}: version {version} is not valid")
    if version < SCHEMA_VERSION:
        return version
    raise SpoolError(
        f"{path}: made by a newer logfwd (spool version {version}, this one knows {SCHEMA_VERSION}); "
        "run that one, or move the file away"
    )


def load(path: Path, connection: sqlite3.Connection) -> Contents:
    """Everything except payloads; SpoolCorrupt for values that no spool can contain."""
    found = Contents()
    with clear_errors(path):
        found.meta = dict(rows(connection, "meta"))
        found.positions = {key: Position(*rest) for key, *rest in rows(connection, "positions")}
        found.runs = [(stream, Run(*rest)) for stream, *rest in rows(connection, "runs", "ORDER BY stream, number")]
        found.waiting = read_waiting(connection)
        found.totals = {stream: Totals(*rest) for stream, *rest in rows(connection, "totals")}
        for key in key_ids(connection):
            found.keys.adopt(*key)
        found.dead_letter_bytes = bytes_by_stream(connection)
        found.last_row = connection.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()[0]
        found.last_blob = connection.execute("SELECT coalesce(max(id), 0) FROM blobs").fetchone()[0]
    if "forwarder_id" not in found.meta:
        raise SpoolCorrupt(f"{path}: no forwarder id")
    runs = {(stream, run.number) for stream, run in found.runs}
    for stream, waiting in found.waiting.items():
        for run in {*(row.run for row in waiting.rows), *(segment.run for segment in waiting.beyond)}:
            if (stream, run) not in runs:
                raise SpoolCorrupt(f"{path}: batches of stream {stream} belong to run {run}, which does not exist")
    for stream, totals in found.totals.items():
        waiting_records = found.waiting[stream].records if stream in found.waiting else 0
        if fault := totals.imbalance(stream, waiting_records):
            raise SpoolCorrupt(f"{path}: {fault}")
    return found


def read_key(connection: sqlite3.Connection, row_id: int, key_hash: bytes) -> Key | None:
    """The newest row of a key. If the index leads to another key with the same first bytes, search the whole table."""
    for where, value in (("WHERE id = ?", row_id), ("WHERE hash = ? ORDER BY id DESC LIMIT 1", key_hash)):
        for found in rows(connection, "keys", where, value):
            _, its_hash, *values = found
            if its_hash == key_hash:
                return Key(*values)
    return None


# -- errors ----------------------------------------------------------------------------------------------------

_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
PROBE_BYTES = 4 * 1024 * 1024
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
        if error.errno in FULL_ERRORS:
            raise SpoolFull(f"{path}: the disk is full ({error}); free some space") from error
        raise SpoolError(f"{path}: {error}") from error


def close_unfinished(path: Path, connection: sqlite3.Connection) -> None:
    """Close a file still marked open. SQLite deletes the merged log; an empty one avoids a false alarm."""
    connection.close()
    with contextlib.suppress(OSError):
        beside(path, "-wal").touch()


def describe(path: Path, error: sqlite3.Error, *, opening: bool = False) -> SpoolError:
    """What an SQLite error means for the spool, in one sentence."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or _is_full(path) or (code == sqlite3.SQLITE_IOERR and _is_over_quota(path)):
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


def _is_full(path: Path) -> bool:
    """True if not even a page can be written. A file system that does not answer is not full."""
    with contextlib.suppress(OSError):
        return free_bytes(path) < PAGE_BYTES
    return False


def _is_over_quota(path: Path) -> bool:
    """True if the system refuses room that the file system has; SQLite calls that an I/O error."""
    probe = beside(path, ".probe")
    try:
        with os.fdopen(open_own(probe, os.O_WRONLY), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, PROBE_BYTES)
    except OSError as error:
        return error.errno in FULL_ERRORS
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return False


def _is_no_file(path: Path) -> bool:
    """True if something other than a file is in place of the spool or of its log."""
    return any(part.exists() and not part.is_file() for part in (path, beside(path, "-wal"), beside(path, "-shm")))


def total_bytes(path: Path) -> int:
    """Bytes of the file system of a path."""
    stat = os.statvfs(path.parent)
    return stat.f_blocks * stat.f_frsize


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user can still write on the file system of a path."""
    stat = os.statvfs(path.parent)
    return stat.f_bavail * stat.f_frsize
