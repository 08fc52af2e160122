"""What removed streams left behind: the batches and dead letters of streams that are configured no more.

An original stream's file is deleted; a twin's part is deleted from the file of its original.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from logfwd.spool.file import clear_errors, reader
from logfwd.spool.notes import Notes
from logfwd.spool.store import Spool
from streams.files import sync_directory

_SUMS = """
    SELECT stream, total(batches), total(records), total(bytes), total(letters), total(letter_records) FROM (
        SELECT stream, 0 AS batches, 0 AS records, 0 AS bytes, 0 AS letters, 0 AS letter_records FROM totals
        UNION ALL SELECT stream, count(*), sum(record_count), sum(size), 0, 0 FROM batches GROUP BY stream
        UNION ALL SELECT stream, 0, 0, 0, count(*), sum(record_count) FROM dead_letters GROUP BY stream
    ) GROUP BY stream
"""

_BESIDE = ("-wal", "-shm", ".part", ".ready", ".suspect", ".scratch", ".scratch-wal", ".scratch-shm", "")
"""The files of a spool; the database is the last that is deleted, so that an interrupted removal can be repeated."""


class Remains(msgspec.Struct, frozen=True):
    """One stream's part of a spool file."""

    stream: str
    file: Path
    batches: int = 0
    records: int = 0
    size: int = 0
    dead_letters: int = 0
    dead_letter_records: int = 0

    @property
    def is_original(self) -> bool:
        """True if the file is its own; False for a twin."""
        return self.stream == self.file.stem

    def __str__(self) -> str:
        return (
            f"{self.stream}: waiting batches {self.batches} ({self.records} records, {self.size} bytes), "
            f"dead letters {self.dead_letters} ({self.dead_letter_records} records)"
        )


def in_file(path: Path) -> list[Remains]:
    """What a file holds of each of its streams, the original first. Works while a forwarder uses it."""
    with contextlib.closing(reader(path)) as connection:
        connection.execute("BEGIN")
        found = [Remains(stream, path, *map(int, sums)) for stream, *sums in connection.execute(_SUMS)]
    if all(each.stream != path.stem for each in found):
        found.append(Remains(path.stem, path))
    return sorted(found, key=lambda each: (not each.is_original, each.stream))


def definition_in(path: Path) -> str:
    """The stream and its twins as they were configured last, as JSON; empty in a file that does not say it."""
    with clear_errors(path), contextlib.closing(reader(path)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'definition'").fetchone()
    return "" if found is None else str(found[0])


def of_removed_streams(state_dir: Path, configured: set[str]) -> Iterator[Remains]:
    """What the spools of a directory hold of streams that are not configured."""
    for path in sorted(state_dir.glob("*.spool")):
        yield from (each for each in in_file(path) if each.stream not in configured)


async def remove_twin(path: Path, stream: str) -> None:
    """Delete a twin's part of its original's file, which no forwarder may have open meanwhile."""
    async with Spool(path) as spool:
        notes = Notes()
        notes.delete_stream(stream)
        await spool.commit(notes)


def release_reserve(path: Path) -> None:
    """Give back the disk's room that a spool reserves: one that is not used needs none."""
    with contextlib.suppress(OSError):
        path.with_suffix(".reserve").unlink(missing_ok=True)


def remove_file(path: Path) -> tuple[int, list[Path]]:
    """Delete a spool; returns how many bytes that frees, and the damaged files that stay."""
    files = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    freed = 0
    for file in (path.with_suffix(".reserve"), *files):
        with contextlib.suppress(FileNotFoundError):
            size = file.stat().st_size
            file.unlink()
            freed += size
    sync_directory(path.parent)
    return freed, sorted(path.parent.glob(f"{path.name}.damaged-*"))
