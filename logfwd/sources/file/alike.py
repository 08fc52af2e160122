"""Lost positions that a file has to do with by its content, where no inode says so."""

from __future__ import annotations

import os
from collections import deque
from itertools import islice

from logfwd.sources.file.beginnings import Beginnings
from logfwd.sources.file.identity import Head, Place, head_of
from logfwd.sources.file.lost import LostPositions
from logfwd.sources.file.names import bases
from logfwd.sources.file.released import Lost
from logfwd.sources.file.scan import Found
from logfwd.sources.file.which import ENOUGH_BYTES, LEAST_BYTES, Own, Verdict, with_other_inode
from logfwd.sources.position import tail_hash

CANDIDATES, LIKE = 64, 4
"""How many positions with the same head are compared with a file; how many of them to tell what it may repeat."""


class Alike:
    """Finds lost positions of one source by content. Heads begin behind `head_start` bytes."""

    def __init__(self, lost: LostPositions, beginnings: Beginnings, head_start: int) -> None:
        self._lost, self._beginnings, self._head_start = lost, beginnings, head_start
        self._deleted_lately: deque[tuple[str, Place]] = deque(maxlen=CANDIDATES)

    def by_content(self, file: Found, fd: int, *, held: bool) -> tuple[Lost, Place, Verdict] | None:
        """The position that this file has to do with by its content, its place in the file, and what the file is.

        `held`: the file was seen as a copy while its original was still whole.
        """
        if (copied := self._lost.emptied.copied_by(file, fd, held=held)) is not None:
            return copied
        found: tuple[Lost, Place, Verdict] | None = None
        for lost in self._nearest(file, head_of(fd, self._head_start)):
            if lost.was_deleted:
                continue
            own = Own.PRESENT if lost.seen else Own.GONE
            verdict = with_other_inode(lost.place.evidence(fd), own, is_rotated_name=False)
            if verdict is Verdict.MOVED:
                return lost, lost.place.in_file(fd), verdict
            if verdict is Verdict.WAIT and file.size <= lost.present_bytes():
                found = found or (lost, lost.place, verdict)
        return found or self._part_of(file, fd)

    def _part_of(self, file: Found, fd: int) -> tuple[Lost, Place, Verdict] | None:
        """The position whose present file goes on where this one ends: an earlier copy of it."""
        rotated = file.path != file.family
        head = head_of(fd, self._head_start)
        alike = (lost for lost in self._lost if lost.has_family(file.family)) if rotated else ()
        for lost in (*self._nearest(file, head), *alike):
            if lost.seen and self._is_part(file, fd, lost):
                return lost, lost.place, Verdict.WAIT
        return None

    def _is_part(self, file: Found, fd: int, lost: Lost) -> bool:
        """True for a file that begins as the present file of a position does, and ends before that does."""
        try:
            other = os.open(lost.seen_at, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            present = os.fstat(other)
            if present.st_ino != lost.place.inode or not 0 < file.size <= present.st_size:
                return False
            return self._beginnings.is_beginning(file, fd, lost.place, other)
        finally:
            os.close(other)

    def begin_as(self, head: bytes, family: str) -> list[Lost]:
        """Positions whose file began as this content does: by 1 KiB, or by less of it within a family."""
        same_head = self._lost.with_head((self._head_start, len(head), tail_hash(head)))
        alike = dict(islice(reversed(same_head.items()), CANDIDATES))
        family_of = {each.key: each for each in self._lost if each.has_family(family)}
        return list((alike | {key: each for key, each in family_of.items() if each.place.begins_with(head)}).values())

    def note_deleted(self, path: str, place: Place) -> None:
        """Remember what was read of a deleted file, to say what a new one like it repeats."""
        self._deleted_lately.append((path, place))

    def kept_bytes(self, file: Found, fd: int) -> int:
        """How many bytes that were read of other files may be at the start of this one."""
        emptied = [lost for lost in self._lost.emptied if lost.place.inode != file.id[1]]
        names = {file.path, file.family, *bases(file.path)}
        near = [
            *self._nearest(file, head_of(fd, self._head_start))[:LIKE],
            *map(self._lost.with_path, names),
            *self._lost.with_inode(file.id[1]),
        ]
        like = [lost for lost in near if lost and not lost.truncated]
        lost = [each for each in (*emptied[-LIKE:], *like) if each.place.archive is None]
        found = [each.place.kept_bytes(fd, same=_may_be_its(each, file, fd)) for each in lost]
        found += [
            place.kept_bytes(fd, same=False)
            for path, place in self._deleted_lately
            if path in names or place.head_bytes >= ENOUGH_BYTES
        ]
        kept = max(found, default=0)
        if not kept and file.path != file.family and any(_is_too_short(file, lost) for lost in like):
            return file.size
        return kept

    def _nearest(self, file: Found, head: Head) -> list[Lost]:
        """Some of the positions with this head, those with the file's names first; thousands of files may be alike."""
        if head[1] < LEAST_BYTES:
            return []
        alike = (*islice(reversed(self._lost.with_head(head).values()), CANDIDATES), self._lost.with_path(file.path))
        same = {each.key: each for each in alike if each and each.place.head == head and not each.truncated}
        name = os.path.basename(file.path)
        nearness = {each.key: (each.path != file.path, os.path.basename(each.path) != name) for each in same.values()}
        return sorted(same.values(), key=lambda lost: (nearness[lost.key], -lost.place.offset))


def _is_too_short(file: Found, lost: Lost) -> bool:
    """True for a rotated file that may be an early copy of one that is gone: its head is longer than this file."""
    head_ends = lost.place.head_start + lost.place.head_bytes
    return not lost.seen and lost.has_family(file.family) and file.size < head_ends


def _may_be_its(lost: Lost, file: Found, fd: int) -> bool:
    """True if the position may be of this file: its device can have another number. Or it may be the copy of one that
    was edited and then emptied: short content does not tell."""
    if lost.truncated and file.path != file.family and lost.has_family(file.family):
        return True
    return lost.place.inode == file.id[1] and lost.place.is_of(fd) is not False
