"""One position whose file is not followed now: a stored one after a start, or that of a file that was released."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
import structlog

from logfwd.sources.file.identity import FileId, Place
from logfwd.sources.file.marks import Detail, mark_of, read_mark
from logfwd.sources.file.names import bases
from logfwd.sources.file.scan import Found
from logfwd.sources.file.tail import Tail
from logfwd.sources.position import FILE, Mark, Position

log = structlog.get_logger("logfwd.sources.file")


class Lost(msgspec.Struct):
    """One position.

    `truncated`: its file was emptied in place. `missed`: its directory was listed and the file was not there. `seen`:
    the last scan saw its file, `seen_at` this path. `id`: the file in this life; None for a stored position.
    `unread_bytes`: how much was not read when the file was released. `since`: when its rest was first looked for.
    `settled`: no more is expected of the file: it was read to its end, or that its rest is missing was said. `judged`:
    so were its possible repeats. `was_open`: when it was seen to be emptied: its inode was not used again before.
    """

    key: str
    path: str
    family: str
    place: Place
    written_ms: int = 0
    truncated: bool = False
    missed: bool = False
    seen: bool = False
    seen_at: str = ""
    id: FileId | None = None
    unread_bytes: int = 0
    away_seconds: float = 0.0
    stored_age: int = 0
    since: float | None = None
    settled: bool = False
    stored_settled: bool = False
    judged: bool = False
    was_open: bool = False

    @property
    def was_deleted(self) -> bool:
        """True if the deletion of its file was seen, in this life or an earlier one: what is like it is a new file."""
        return not self.place.inode and self.place.archive is None

    @property
    def directory(self) -> str:
        return os.path.dirname(self.path) or "."

    def has_family(self, family: str) -> bool:
        """True for each name that its file may have had: which of them is the family depends on what is there."""
        return family in (self.family, self.path) or family in bases(self.path)

    def has_more(self, file: Found) -> bool:
        """True if its file is to be followed again: a configured one always is, others if they have grown."""
        if self.place.archive is not None:
            return self.place.offset < self.place.archive.plain_bytes or bool(self.place.state)
        return file.configured or file.size > self.place.offset or bool(self.place.state)

    def present_bytes(self) -> int:
        """How large its file is at the moment, if the last scan saw it: a larger file is no copy of it."""
        try:
            status = os.stat(self.seen_at)
        except OSError:
            return self.place.offset
        return status.st_size if status.st_ino == self.place.inode else self.place.offset

    def position(self) -> Position:
        """The position with its age, as the spool stores it."""
        self.stored_age, self.stored_settled = int(self.away_seconds), self.settled
        age, settled = self.stored_age, self.settled
        return Position(
            FILE, mark_of(self.place, self.path, self.family, self.written_ms, age, settled=settled).encode()
        )


def lost_from(tail: Tail, *, truncated: bool = False, seen: bool = False) -> Lost:
    """The position of a file that is not followed any more."""
    written_ms, unread_bytes = tail.mtime_ns // 1_000_000, tail.unread_bytes
    return Lost(
        tail.key,
        tail.path,
        tail.family,
        tail.place,
        written_ms,
        truncated=truncated and tail.place.archive is None,
        seen=seen,
        seen_at=tail.listed_at or tail.path,
        id=tail.id,
        unread_bytes=unread_bytes,
        settled=tail.settled and not truncated,
        stored_settled=tail.settled,
    )


def is_doubtful(file: Found, path: str, family: str, written_ms: int, *, missed: bool) -> bool:
    """True if a file has inode and content of the one that was at `path`, and yet may be a new one.

    A file that was not written to since then is the same. One that was may be another if it was not there in between,
    or if its name is not a rotated one. A file that is not configured is never doubtful: it would not be read as new.
    """
    if not file.configured or file.mtime_ns // 1_000_000 == written_ms:
        return False
    return missed or (file.path != path and file.family not in (path, family))


DOUBT = "same inode and content as a file that went away; without file handles, it may be that file"
REWRITTEN = "it was edited, shortened or emptied in place"
LIKE_GONE = "it begins like a file that was read and is gone"


def from_marks(positions: Mapping[str, Mark]) -> tuple[list[Lost], list[str]]:
    """Stored marks as lost positions, and the keys of marks that cannot be decoded."""
    lost, unreadable = [], []
    for key, mark in positions.items():
        if (known := read_mark(mark)) is None:
            log.warning("position unreadable", key=key)
            unreadable.append(key)
        else:
            lost.append(_lost(key, *known))
    return lost, unreadable


def _lost(key: str, place: Place, detail: Detail) -> Lost:
    path, family, age = os.fsdecode(detail.path), os.fsdecode(detail.family), detail.away_seconds
    unread_bytes = max(place.archive.plain_bytes - place.offset, 0) if place.archive is not None else 0
    return Lost(
        key,
        path,
        family,
        place,
        detail.written_ms,
        unread_bytes=unread_bytes,
        away_seconds=age,
        stored_age=age,
        settled=detail.settled,
        stored_settled=detail.settled,
    )
