"""Positions whose file is not followed now: stored ones after a start, and those of released files.

A file takes over such a position if inode, handle and content agree, whatever its name. If the position's file was
emptied in place (copytruncate), content alone is enough: then the file is the copy. Otherwise content alone never makes
a new file a known one: where there are no handles and an inode may have been used again, the file is read from its
start, and the possible repeats are logged. A position is kept for an hour after its file was last seen, because a
directory may be unmounted and come back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from logfwd.sources.file.identity import FileId, Place, open_same, place_at, read_mark
from logfwd.sources.file.scan import Found, Troubles
from logfwd.sources.position import Mark

LOST_SECONDS = 3600.0

log = structlog.get_logger("logfwd.sources.file")


@dataclass(slots=True)
class Lost:
    """One position. `until` is None before the first scan.

    `truncated`: its file was emptied in place. `missed`: its directory was listed and the file was not there. `id`: the
    file in this life; None for a stored position. `unread_bytes`: how much was not read when the file was released.
    """

    key: str
    path: str
    family: str
    place: Place
    written_ms: int = 0
    until: float | None = None
    truncated: bool = False
    missed: bool = False
    id: FileId | None = None
    unread_bytes: int = 0

    def has_family(self, family: str) -> bool:
        """True for its family, and for its path: an earlier version may have stored a shortened family."""
        return family in (self.family, self.path)


class Match(Enum):
    """How a file with a position's inode relates to that position."""

    SAME = auto()
    CHANGED = auto()  # the position's file, but other content
    ANOTHER = auto()  # another file
    DOUBTFUL = auto()  # the content of the position's file, but perhaps in another file


def is_doubtful(file: Found, path: str, family: str, written_ms: int, *, missed: bool) -> bool:
    """True if a file has inode and content of the one that was at `path`, and yet may be a new one.

    A file that was not written to since then is the same. One that was may be another if it was not there in between,
    or if its name is not a rotated one. A file that is not configured is never doubtful: it would not be read as new.
    """
    if not file.configured or file.mtime_ns // 1_000_000 == written_ms:
        return False
    return missed or (file.path != path and file.family not in (path, family))


def log_read_again(file: Found, offset: int) -> None:
    """Log that a file is read from its start although it may be one that was read before."""
    log.warning(
        "file read again",
        path=file.path,
        possible_repeat_bytes=offset,
        reason="same inode and content as a file that went away; without file handles, it may be that file",
    )


def log_unread(path: str, unread_bytes: int) -> None:
    """Log how many bytes of a file that is gone were never read, if any."""
    if unread_bytes > 0:
        log.warning("file gone unread", path=path, bytes=unread_bytes)


def from_marks(positions: Mapping[str, Mark]) -> tuple[list[Lost], list[str]]:
    """Stored marks as lost positions, and the keys of marks that cannot be decoded."""
    lost, unreadable = [], []
    for key, mark in positions.items():
        if (known := read_mark(mark)) is None:
            log.warning("position unreadable", key=key)
            unreadable.append(key)
        else:
            place, detail = known
            path, family = os.fsdecode(detail.path), os.fsdecode(detail.family)
            lost.append(Lost(key, path, family, place, detail.written_ms))
    return lost, unreadable


class LostPositions:
    """The lost positions of one source, by key."""

    def __init__(self, troubles: Troubles) -> None:
        self._lost: dict[str, Lost] = {}
        self._deleted: list[str] = []
        self._troubles = troubles

    def add(self, lost: Lost) -> None:
        self._lost[lost.key] = lost

    def take(self, lost: Lost) -> None:
        """Remove a position that a file has taken over."""
        del self._lost[lost.key]

    def inodes(self) -> set[int]:
        return {lost.place.inode for lost in self._lost.values()}

    def families(self) -> set[str]:
        return {lost.family for lost in self._lost.values()}

    def paths(self) -> set[str]:
        return {lost.path for lost in self._lost.values()}

    def awaits_copy(self, family: str) -> bool:
        """True if a file of this family was emptied in place, so that a copy may hold its unread rest."""
        return any(lost.truncated and lost.has_family(family) for lost in self._lost.values())

    def expire(self, now: float) -> list[str]:
        """Remove the positions of files that are deleted, or have not been seen for an hour; their keys."""
        expired, self._deleted = self._deleted, []
        for lost in list(self._lost.values()):
            if lost.until is None:
                lost.until = now + LOST_SECONDS
            elif lost.until <= now:
                expired.append(lost.key)
                self._delete(lost)
        return expired

    def _delete(self, lost: Lost) -> None:
        self.take(lost)
        log_unread(lost.path, lost.unread_bytes)

    def claims(self, unknown: list[Found], now: float) -> list[tuple[Found, Lost]]:
        """Files of lost positions by inode, handle and content, oldest first.

        Removes from `unknown` every file that must not be taken for a new one: these, files read to their end, and
        files that cannot be read now. Raises Moved.
        """
        by_inode: dict[int, list[Lost]] = {}
        for lost in self._lost.values():
            by_inode.setdefault(lost.place.inode, []).append(lost)
        self._note_missed({file.id[1] for file in unknown})
        claims: list[tuple[Found, Lost]] = []
        for file in [file for file in unknown if file.id[1] in by_inode]:
            candidates = by_inode[file.id[1]]
            if (matches := self._match(file, candidates)) is None:
                unknown.remove(file)
                for lost in candidates:
                    lost.until = now + LOST_SECONDS
                continue
            for lost, match in matches:
                self._note(file, lost, match, now)
            fitting = [lost for lost, match in matches if match is Match.SAME]
            candidates[:] = [lost for lost in candidates if lost.key in self._lost]
            if fitting:
                unknown.remove(file)
                best = max(fitting, key=lambda lost: lost.place.offset)
                candidates.remove(best)
                if file.configured or file.size > best.place.offset or best.place.state:
                    claims.append((file, best))
        return sorted(claims, key=lambda claim: claim[0].age_order)

    def _note_missed(self, inodes: set[int]) -> None:
        """Note which files a listing lacks, given its inodes. A directory that is away says nothing about its files."""
        is_there: dict[str, bool] = {}
        for lost in self._lost.values():
            if not lost.missed and lost.place.inode not in inodes:
                directory = os.path.dirname(lost.path) or "."
                if directory not in is_there:
                    is_there[directory] = os.path.isdir(directory)
                lost.missed = is_there[directory]

    def _note(self, file: Found, lost: Lost, match: Match, now: float) -> None:
        """Note what a file with the inode of a lost position means for it."""
        if match is Match.SAME:
            lost.until, lost.missed = now + LOST_SECONDS, False
        elif match is Match.CHANGED:
            lost.truncated = lost.truncated or lost.path == file.path
        else:
            if match is Match.DOUBTFUL:
                log_read_again(file, lost.place.offset)
            if lost.id == file.id:  # its inode was used again, so its file is deleted
                self._delete(lost)
                self._deleted.append(lost.key)

    def _match(self, file: Found, candidates: list[Lost]) -> list[tuple[Lost, Match]] | None:
        """How the file relates to each of the positions; None if it cannot be read now."""
        try:
            fd = open_same(file.path, file.id)
            try:
                return [(lost, _match(file, fd, lost)) for lost in candidates]
            finally:
                os.close(fd)
        except OSError as error:
            self._troubles.note(file.path, error.strerror or str(error))
            return None

    def copied(self, file: Found, fd: int, *, held: bool) -> tuple[Lost, Place] | None:
        """The position of a truncated original that this copy takes over, and its place in the copy.

        A copy that ends before the position was read completely from the original. It is recognised by a full head: a
        shorter one reaches up to the position. `held`: the copy was seen while the original was still whole.
        """
        size = os.fstat(fd).st_size
        for lost in self._lost.values():
            if not lost.truncated or not lost.has_family(file.family):
                continue
            if lost.place.fits(fd):
                return lost, lost.place.in_file(fd)
            if size < lost.place.offset and (held or lost.place.head_fits(fd)):
                return lost, place_at(fd, size)
        return None


def _match(file: Found, fd: int, lost: Lost) -> Match:
    same = lost.place.is_of(fd)
    if same is False:
        return Match.ANOTHER
    if not lost.place.fits(fd):
        return Match.CHANGED
    if same or not is_doubtful(file, lost.path, lost.family, lost.written_ms, missed=lost.missed):
        return Match.SAME if same or lost.place.offset else Match.ANOTHER
    return Match.DOUBTFUL
