"""The tables of a spool's file in both versions of the format, and the types of their columns.

Version 1 is read and upgraded, never written: `rows` and `converted` return rows with the columns of version 2.
The package explains what the tables are for.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from logfwd.sources.keys import Key
from logfwd.sources.position import FILE, Mark
from logfwd.spool.rows import Run, Totals
from streams.errors import SpoolCorrupt

SCHEMA_VERSION = 2
PAGE_BYTES = 16 * 1024
TOTALS = Totals.__struct_fields__
"""Columns of `totals` after the stream: the fields of Totals, in their order."""
_NEW_TOTALS = ("sampled", "limited", "filtered")
"""Columns that version 1 does not have."""


def _totals_columns(names: tuple[str, ...]) -> str:
    return ", ".join(["stream TEXT PRIMARY KEY", *(f"{name} INTEGER" for name in names)])


TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "runs": "stream TEXT, number INTEGER, cluster_id TEXT, topic TEXT, topic_id TEXT, partition INTEGER, "
    "producer_id INTEGER, producer_epoch INTEGER, grant BLOB, next_sequence INTEGER, "
    "last_acknowledged_sequence INTEGER, PRIMARY KEY (stream, number)",
    "blobs": "id INTEGER PRIMARY KEY, payload BLOB NOT NULL",
    "batches": "id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, blob INTEGER, record_count INTEGER, size INTEGER, "
    "base_sequence INTEGER",
    "dead_letters": "id INTEGER PRIMARY KEY, stream TEXT, run INTEGER, code TEXT, text TEXT, at_ms INTEGER, "
    "record_count INTEGER, payload BLOB",
    "positions": "key TEXT PRIMARY KEY, source TEXT, value BLOB, expires REAL",
    "totals": _totals_columns(TOTALS),
    "keys": "id INTEGER PRIMARY KEY, hash BLOB, progress INTEGER, total INTEGER, accepted INTEGER, invalid INTEGER, "
    "digest BLOB, expires REAL",
}
"""Names and columns, in the order in which an upgraded file has them: the new tables come last."""

_POSITIONS_1 = "key TEXT PRIMARY KEY, offset INTEGER, tail_bytes INTEGER, tail_hash BLOB, detail BLOB"
TABLES_1 = {
    **{name: TABLES[name] for name in ("meta", "runs", "blobs", "batches")},
    "positions": _POSITIONS_1,
    "totals": _totals_columns(tuple(name for name in TOTALS if name not in _NEW_TOTALS)),
    "dead_letters": TABLES["dead_letters"],
}
"""Names and columns of version 1."""

_Count = Annotated[int, Meta(ge=0)]
_Some = Annotated[int, Meta(ge=1)]
_Time = Annotated[float, Meta(ge=0)]
_Hash = Annotated[bytes, Meta(min_length=16, max_length=16)]
SHAPES: dict[str, Any] = {
    "meta": tuple[str, str],
    "runs": tuple[
        str, _Some, str, str, str, int, Annotated[int, Meta(ge=-1)], _Count, bytes, _Count, Annotated[int, Meta(ge=-1)]
    ],
    "batches": tuple[_Count, str, _Some, _Some, _Some, _Some, _Count | None],
    "positions": tuple[str, str, bytes, _Time | None],
    "totals": tuple[(str, *[_Count] * len(TOTALS))],  # type: ignore[misc]
    "dead_letters": tuple[_Count, str, _Some, str, str, int, _Some, bytes],
    "keys": tuple[_Some, _Hash, _Count, _Count | None, _Count, _Count, bytes, _Time],
}
"""Column types of each table, with their bounds."""

_WIDTHS = {"blobs": 2, **{table: len(shape.__args__) for table, shape in SHAPES.items()}}

_SHAPES_1: dict[str, Any] = {
    "positions": tuple[str, _Count, _Count, bytes, bytes],
    "totals": tuple[(str, *[_Count] * (len(TOTALS) - len(_NEW_TOTALS)))],  # type: ignore[misc]
}


def beside(path: Path, suffix: str) -> Path:
    """The name of a file next to the spool, such as its log."""
    return path.with_name(path.name + suffix)


def tables_of(version: int) -> Mapping[str, str]:
    return TABLES_1 if version == 1 else TABLES


def create(version: int, *names: str) -> str:
    """SQL that creates all tables of a version, or these."""
    tables = tables_of(version)
    return "".join(f"CREATE TABLE {name} ({tables[name]});" for name in names or tables)


def insert(table: str, or_else: str = "") -> str:
    """SQL that inserts a row. `or_else` handles a row with the same key: OR REPLACE or OR IGNORE."""
    return f"INSERT {or_else} INTO {table} VALUES ({', '.join('?' * _WIDTHS[table])})"  # noqa: S608 (names of our own)


def upsert(table: str, *key: str) -> str:
    """SQL that inserts a row or updates the one with its key. Unlike OR REPLACE it leaves the index's page alone."""
    columns = re.findall(r"(\w+) (?:TEXT|INTEGER|BLOB|REAL)", TABLES[table])
    values = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return f"{insert(table)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values}"


# -- tables --------------------------------------------------------------------------------------------------


def make_tables(connection: sqlite3.Connection, version: int = SCHEMA_VERSION) -> None:
    """Create all tables in an empty database."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = MEMORY")  # an unfinished file is discarded
    connection.execute("PRAGMA synchronous = FULL")
    if version > 1:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.executescript(f"BEGIN; {create(version)} PRAGMA user_version = {version}; COMMIT")


def replace_tables(connection: sqlite3.Connection) -> None:
    """Replace the tables of version 1 by empty ones of version 2, and set the version in the header."""
    connection.execute("DROP TABLE positions")
    connection.execute("DROP TABLE totals")
    for name in ("positions", "totals", "keys"):
        connection.execute(create(SCHEMA_VERSION, name))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def roots_of(connection: sqlite3.Connection) -> dict[str, int]:
    """The first page of each table and index, by name."""
    return dict(connection.execute("SELECT name, rootpage FROM sqlite_master ORDER BY rowid"))


# -- rows ------------------------------------------------------------------------------------------------------

_run_values = attrgetter(*Run.__struct_fields__)
_totals_values = attrgetter(*TOTALS)


def run_row(stream: str, run: Run) -> tuple[Any, ...]:
    """A row of `runs`: after the stream come the fields of a Run in their order, as `load` reads them."""
    return stream, *_run_values(run)


def totals_row(stream: str, totals: Totals) -> tuple[Any, ...]:
    """A row of `totals`: the stream and the fields of Totals."""
    return stream, *_totals_values(totals)


def key_row(row_id: int, key_hash: bytes, key: Key) -> tuple[Any, ...]:
    """A row of `keys`: id, hash and the fields of a Key."""
    return row_id, key_hash, *msgspec.structs.astuple(key)


def version_of(connection: sqlite3.Connection) -> int:
    """The version that the header of the file names."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def rows(connection: sqlite3.Connection, table: str, end: str = "", *values: object) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, each checked; SpoolCorrupt for one of the wrong shape. Reads both versions.

    `end` is the rest of the SELECT statement, `values` are its parameters.
    """
    version = version_of(connection)
    if table not in tables_of(version):
        return
    for row in connection.execute(f"SELECT * FROM {table} {end}", values):  # noqa: S608 (no text from outside)
        yield converted(version, table, row)


_convert = partial(msgspec.convert, builtin_types=(bytes,))
"""Without `builtin_types`, text in a column of bytes would be taken for base64."""


def key_ids(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes, float]]:
    """Id, hash and expiry of all rows of `keys` in order. There may be 200 000, so they are checked many at a time."""
    if version_of(connection) == 1:
        return
    cursor = connection.execute("SELECT id, hash, expires FROM keys ORDER BY id")
    while found := cursor.fetchmany(1000):
        try:
            yield from _convert(found, list[tuple[_Some, _Hash, _Time]])
        except msgspec.ValidationError as error:
            raise SpoolCorrupt(f"invalid row in keys: {error}") from error


def converted(version: int, table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A checked row from a file of this version, with the columns of version 2; SpoolCorrupt for the wrong shape."""
    shape = _SHAPES_1.get(table, SHAPES[table]) if version == 1 else SHAPES[table]
    try:
        checked: tuple[Any, ...] = _convert(row, shape)
    except msgspec.ValidationError as error:
        raise SpoolCorrupt(f"invalid row in {table}: {error}") from error
    if version == 1 and table == "positions":
        key, *mark = checked
        return key, FILE, Mark(*mark).encode(), None
    if version == 1 and table == "totals":
        return *checked, *[0] * len(_NEW_TOTALS)
    return checked
