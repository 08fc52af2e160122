"""The first page of a spool's file. It is known for every kind of file, so that salvage can put it back.

Nothing in a database can be read without its first page (header and schema). Apart from counters, a spool has one of
three: that of a file created in version 1, that of a file created in version 2, or that of a file upgraded from
version 1, whose new tables begin at pages that `meta` lists.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from logfwd.spool.schema import (
    PAGE_BYTES,
    SCHEMA_VERSION,
    beside,
    make_tables,
    replace_tables,
    roots_of,
    tables_of,
    version_of,
)
from streams.files import open_own


class FirstPage(NamedTuple):
    """A first page (header and schema), apart from its counters, and the root pages of tables and indexes."""

    content: bytes
    roots: Mapping[str, int]
    version: int

    @property
    def indexes(self) -> set[int]:
        """Root pages of indexes; the other roots are those of tables."""
        return {root for name, root in self.roots.items() if name.startswith("sqlite_autoindex")}


def first_page(version: int = SCHEMA_VERSION) -> FirstPage:
    """The first page of every file created in this version."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make_tables(connection, version)
        return FirstPage(connection.serialize()[:PAGE_BYTES], roots_of(connection), version)


_FIXED = (slice(0, 18), slice(20, 24), slice(44, 48), slice(52, 72))
"""Bytes of the header that are equal in every file of a kind (sqlite.org/fileformat2.html, "The Database Header")."""


def has_known_header(path: Path) -> bool:
    """True if a file starts like one that was created in version 1 or 2, or upgraded."""
    with path.open("rb") as file:
        header = file.read(100)
    return any(all(header[part] == known[part] for part in _FIXED) for known in _known_headers())


@cache
def _known_headers() -> tuple[bytes, ...]:
    return tuple(page.content[:100] for page in (first_page(1), first_page(), upgraded_first_page({})))


def upgraded_first_page(roots: Mapping[str, int]) -> FirstPage:
    """The first page of a file upgraded from version 1, given the root pages of its new tables."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make_tables(connection, 1)
        old_roots = {name: root for name, root in roots_of(connection).items() if not _is_replaced(name)}
        replace_tables(connection)
        connection.execute("PRAGMA writable_schema = ON")
        for name, root in roots.items():
            if name not in old_roots:
                connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (root, name))
        return FirstPage(connection.serialize()[:PAGE_BYTES], roots_of(connection), SCHEMA_VERSION)


def _is_replaced(name: str) -> bool:
    return any(table in name for table in ("positions", "totals"))


@contextlib.contextmanager
def readable(path: Path) -> Iterator[sqlite3.Connection]:
    """The damaged file; if its first page is damaged, a copy with a new one: nothing can be read without it."""
    if _has_good_first_page(path):
        with contextlib.closing(_read_only(path)) as old:
            yield old
        return
    scratch = beside(path, ".scratch")
    try:
        page = _best_first_page(path)
        _copy_with_first_page(path, scratch, page)
        if page.version == 1 and (roots := _roots_after_upgrade(scratch)):
            _copy_with_first_page(path, scratch, upgraded_first_page(roots))
        with contextlib.closing(sqlite3.connect(scratch)) as old:
            yield old
    finally:
        _remove(scratch)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _has_good_first_page(path: Path) -> bool:
    try:
        if not has_known_header(path):
            return False
        with contextlib.closing(_read_only(path)) as old:
            tables = {name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return tables == set(tables_of(version_of(old)))
    except (sqlite3.Error, OSError):
        return False


def _best_first_page(path: Path) -> FirstPage:
    """The page of a created file whose root pages resemble those of this file most."""

    def resemblance(page: FirstPage) -> int:
        return sum(kinds.get(root) in (_INDEX if root in page.indexes else _TABLE) for root in page.roots.values())

    old, new = first_page(1), first_page()
    kinds: dict[int, bytes] = {}
    with contextlib.suppress(OSError), path.open("rb") as file:
        for root in {*old.roots.values(), *new.roots.values()}:
            file.seek((root - 1) * PAGE_BYTES)
            kinds[root] = file.read(1)
    return max(new, old, key=resemblance)


_INDEX, _TABLE = (b"\x02", b"\x0a"), (b"\x05", b"\x0d")
"""First bytes of the pages of an index and of a table (sqlite.org/fileformat2.html, "B-tree Pages")."""


def _roots_after_upgrade(scratch: Path) -> dict[str, int]:
    """The root pages that an upgraded file lists in `meta`; empty for a file that was not upgraded."""
    pages = scratch.stat().st_size // PAGE_BYTES
    try:
        with contextlib.closing(sqlite3.connect(scratch)) as old:
            (text,) = old.execute("SELECT value FROM meta WHERE key = 'roots'").fetchone()
        return msgspec.json.decode(text, type=dict[str, Annotated[int, Meta(ge=2, le=max(pages, 2))]])
    except (sqlite3.Error, TypeError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _copy_with_first_page(path: Path, scratch: Path, first: FirstPage) -> None:
    _remove(scratch)
    for suffix in ("", "-wal"):
        if beside(path, suffix).is_file():
            os.close(open_own(beside(scratch, suffix), os.O_WRONLY | os.O_EXCL))
            shutil.copyfile(beside(path, suffix), beside(scratch, suffix))
    scratch.touch()
    page, pages = bytearray(first.content), max(scratch.stat().st_size // PAGE_BYTES, 1)
    page[18:20] = b"\2\2"  # write-ahead log mode
    struct.pack_into(">III", page, 24, 1, pages, 0)  # change counter, pages, no free pages
    struct.pack_into(">I", page, 36, 0)
    struct.pack_into(">I", page, 92, 1)  # the page count is that of this change counter
    with scratch.open("r+b") as file:
        file.write(page)


def _remove(scratch: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        beside(scratch, suffix).unlink(missing_ok=True)
