"""Positions whose file is not followed now: stored ones after a start, and those of files read to their end.

A file takes such a position over by inode, handle and content, under whatever name it is found; or, where the
position's file was emptied in place (copytruncate), by content alone: then it is the copy. Content alone never makes a
new file a known one: where there are no handles and an inode may have been used again, the file is read from its start,
and this is logged as possible repeats. Positions are kept for an hour after their file was last seen, because a
directory may be unmounted and come back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from logfwd.sources.identity import HEAD_BYTES, FileId, Place, open_same, place_at, read_mark
from logfwd.sources.position import Mark
from logfwd.sources.scan import Found, Troubles

LOST_SECONDS = 3600.0

log = structlog.get_logger("logfwd.sources.file")


@dataclass(slots=True)
class Lost:
    """One position; `until` is None before the first scan.

    `truncated`: its file was emptied in place. `missed`: its directory was listed and did not have its file. `id`:
    which file it was in this life; None for a stored position. `unread_bytes`: seen in its file, and not read.
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


class Match(Enum):
    """What a file with a position's inode is to that position."""

    SAME = auto()
    CHANGED = auto()  # the position's file, with other content
    ANOTHER = auto()  # another file
    DOUBTFUL = auto()  # the content of the position's file, but perhaps another file


def is_doubtful(file: Found, path: str, family: str, written_ms: int, *, missed: bool) -> bool:
    """True where only inode and content say that a file is the one that was at `path`, and it may be a new one.

    A file that was not written to since is the same one. One that was may be another, if it was not there in between
    or has a name that rotation does not give. A file that is not configured has no other reason to be read.
    """
    if not file.configured or file.mtime_ns // 1_000_000 == written_ms:
        return False
    return missed or (file.path != path and file.family not in (path, family))


def say_read_again(file: Found, offset: int) -> None:
    """Log that a file is read from its start, though it may be one that was read before."""
    log.warning(
        "file read again",
        path=file.path,
        possible_repeat_bytes=offset,
        reason="same inode and content as a file that went away; without file handles, it may be that file",
    )


def say_unread(path: str, unread_bytes: int) -> None:
    """Log how much of a file was never read, if it went away before its end was reached."""
    if unread_bytes > 0:
        log.warning("file gone unread", path=path, bytes=unread_bytes)


def from_marks(positions: Mapping[str, Mark]) -> tuple[list[Lost], list[str]]:
    """Stored marks as lost positions, and the keys of those that cannot be read."""
    lost, unreadable = [], []
    for key, mark in positions.items():
        if (known := read_mark(mark)) is None:
            log.warning("a stored position cannot be read and is dropped", key=key)
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
        """A file has taken this position over."""
        del self._lost[lost.key]

    def inodes(self) -> set[int]:
        return {lost.place.inode for lost in self._lost.values()}

    def families(self) -> set[str]:
        return {lost.family for lost in self._lost.values()}

    def paths(self) -> set[str]:
        return {lost.path for lost in self._lost.values()}

    def awaits_copy(self, family: str) -> bool:
        """True if a file of this family was emptied in place, so that a copy may hold the rest of it."""
        return any(lost.truncated and lost.family == family for lost in self._lost.values())

    def expire(self, now: float) -> list[str]:
        """Keys whose files are deleted, or have not been seen for long; they are dropped."""
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
        say_unread(lost.path, lost.unread_bytes)

    def claims(self, unknown: list[Found], now: float) -> list[tuple[Found, Lost]]:
        """Files that are, by inode, handle and content, those of lost positions.

        Oldest first. Removes from `unknown` whatever must not be taken for new: these, those read to their end,
        unreadable ones. Raises Moved.
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
                if file.configured or file.size > best.place.offset:
                    claims.append((file, best))
        return sorted(claims, key=lambda claim: claim[0].age_order)

    def _note_missed(self, inodes: set[int]) -> None:
        """A listing has files with these inodes. A directory that is away itself says nothing of its files."""
        is_there: dict[str, bool] = {}
        for lost in self._lost.values():
            if not lost.missed and lost.place.inode not in inodes:
                directory = os.path.dirname(lost.path) or "."
                if directory not in is_there:
                    is_there[directory] = os.path.isdir(directory)
                lost.missed = is_there[directory]

    def _note(self, file: Found, lost: Lost, match: Match, now: float) -> None:
        """What a file with the inode of a lost position says of it."""
        if match is Match.SAME:
            lost.until, lost.missed = now + LOST_SECONDS, False
        elif match is Match.CHANGED:
            lost.truncated = lost.truncated or lost.path == file.path
        else:
            if match is Match.DOUBTFUL:
                say_read_again(file, lost.place.offset)
            if lost.id == file.id:  # its inode was used again, so its file is deleted
                self._delete(lost)
                self._deleted.append(lost.key)

    def _match(self, file: Found, candidates: list[Lost]) -> list[tuple[Lost, Match]] | None:
        """What the file is to each of the positions; None if it cannot be read now."""
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
        """The position that a copied file takes over from the one that was emptied after the copying, and its place.

        A copy that ends before the position was read wholly from the original. `held`: it was seen beside it.
        """
        size = os.fstat(fd).st_size
        for lost in self._lost.values():
            if not lost.truncated or lost.family != file.family:
                continue
            if lost.place.fits(fd):
                return lost, lost.place.in_file(fd)
            strong = held or lost.place.head_bytes == HEAD_BYTES
            if size < lost.place.offset and (held or lost.place.head_fits(fd)) and strong:
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
