"""Positions whose file is not followed now: stored ones after a start, and those of files read to their end.

A file takes such a position over by inode and content, under whatever name it is found; or, where the position's
file was emptied in place (copytruncate), by content alone: then it is the copy. Positions are kept for an hour after
their file was last seen, because a directory may be unmounted and come back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import structlog

from logfwd.sources.identity import HEAD_BYTES, Place, open_same, place_at, read_mark
from logfwd.sources.position import Mark
from logfwd.sources.scan import Found, Troubles

LOST_SECONDS = 3600.0

log = structlog.get_logger("logfwd.sources.file")


@dataclass(slots=True)
class Lost:
    """One position; `until` is None before the first scan. `truncated`: its file was emptied in place."""

    key: str
    path: str
    family: str
    place: Place
    written_ms: int = 0
    until: float | None = None
    truncated: bool = False


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
        self._troubles = troubles

    def add(self, lost: Lost) -> None:
        self._lost[lost.key] = lost

    def take(self, lost: Lost) -> None:
        """A file has taken this position over."""
        del self._lost[lost.key]

    def inodes(self) -> set[int]:
        return {lost.place.inode for lost in self._lost.values()}

    def paths(self) -> set[str]:
        return {lost.path for lost in self._lost.values()}

    def awaits_copy(self, family: str) -> bool:
        """True if a file of this family was emptied in place, so that a copy may hold the rest of it."""
        return any(lost.truncated and lost.family == family for lost in self._lost.values())

    def expire(self, now: float) -> list[str]:
        """Keys whose files have not been seen for long; they are dropped."""
        expired = []
        for lost in list(self._lost.values()):
            if lost.until is None:
                lost.until = now + LOST_SECONDS
            elif lost.until <= now:
                expired.append(lost.key)
                self.take(lost)
        return expired

    def claims(self, unknown: list[Found], now: float) -> list[tuple[Found, Lost]]:
        """Files that are, by inode and content, those of lost positions.

        Oldest first. Removes from `unknown` whatever must not be taken for new: these, those read to their end,
        unreadable ones. Raises Moved.
        """
        by_inode: dict[int, list[Lost]] = {}
        for lost in self._lost.values():
            by_inode.setdefault(lost.place.inode, []).append(lost)
        claims: list[tuple[Found, Lost]] = []
        for file in [file for file in unknown if file.id[1] in by_inode]:
            candidates = by_inode[file.id[1]]
            fitting = self._fitting(file, candidates)
            for lost in candidates:
                if fitting is None or lost in fitting:
                    lost.until = now + LOST_SECONDS
                else:
                    lost.truncated = lost.truncated or lost.path == file.path
            if fitting == []:
                continue
            unknown.remove(file)
            if fitting:
                best = max(fitting, key=lambda lost: lost.place.offset)
                candidates.remove(best)
                if file.configured or file.size > best.place.offset:
                    claims.append((file, best))
        return sorted(claims, key=lambda claim: claim[0].age_order)

    def _fitting(self, file: Found, candidates: list[Lost]) -> list[Lost] | None:
        """The positions that fit the file; None if it cannot be read now."""
        try:
            fd = open_same(file.path, file.id)
            try:
                return [lost for lost in candidates if lost.place.fits(fd)]
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
                return lost, msgspec.structs.replace(lost.place, inode=file.id[1])
            strong = held or lost.place.head_bytes == HEAD_BYTES
            if size < lost.place.offset and (held or lost.place.head_fits(fd)) and strong:
                return lost, place_at(fd, size)
        return None
