"""Positions of files that were emptied in place, and the copies that take them over.

There may be several copies of a file: the one that was made for the truncate, and others made before. The largest of
them has all that was written (of equal ones, one that would be read); the others are parts of it, and wait like copies
beside a whole original (held.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from logfwd.sources.file.held import Held
from logfwd.sources.file.identity import Place, open_same, place_at
from logfwd.sources.file.released import Lost
from logfwd.sources.file.scan import Found
from logfwd.sources.file.which import ENOUGH_BYTES, Own, Verdict, with_other_inode


class Emptied:
    """The positions of emptied files, until a copy takes them."""

    def __init__(self) -> None:
        self._lost: dict[str, Lost] = {}
        self._largest: dict[str, Found] = {}
        """The largest copy of each that this scan has found."""
        self.is_new = False
        """One was added since this was reset: its copy may be younger than what is listed."""

    def add(self, lost: Lost) -> None:
        lost.truncated = self.is_new = True
        lost.since, lost.settled = None, False  # its copy is looked for from now on, however long it was away before
        self._lost[lost.key] = lost

    def __bool__(self) -> bool:
        return bool(self._lost)

    def __iter__(self) -> Iterator[Lost]:
        return iter(self._lost.values())

    def discard(self, lost: Lost) -> None:
        self._lost.pop(lost.key, None)

    def begin_search(self, now: float) -> None:
        """Note since when copies of these files are looked for."""
        for lost in self._lost.values():
            if lost.since is None:
                lost.since = now

    def awaits_copy(self, family: str) -> bool:
        """True if a file of this family was emptied, so that a copy may hold its unread rest."""
        return any(lost.has_family(family) for lost in self._lost.values())

    def were_read_beyond(self, file: Found, fd: int, offset: int) -> bool:
        """True for a copy of an emptied file of which more than so much was read."""
        copied = self._copied(file, fd, held=False)
        return copied is not None and copied[1].offset > offset

    def choose(self, files: Iterable[Found], held: Held) -> None:
        """Find the largest copy of each emptied file among these, but for those that cannot be read. Raises Moved."""
        self._largest = {}
        for file in files if self._lost else ():
            with contextlib.suppress(OSError):
                fd = open_same(file.path, file.id)
                try:
                    found = self._copied(file, fd, held=file in held)
                finally:
                    os.close(fd)
                if found is not None:
                    key = found[0].key
                    self._largest[key] = max(self._largest.get(key, file), file, key=_rank)

    def is_taken_by(self, file: Found) -> bool:
        """True for the largest copy of an emptied file."""
        return any(each.id == file.id for each in self._largest.values())

    def copied_by(self, file: Found, fd: int, *, held: bool) -> tuple[Lost, Place, Verdict] | None:
        """The position that this file takes over as a copy, and its place there; WAIT if a larger copy takes it."""
        if (found := self._copied(file, fd, held=held)) is None:
            return None
        lost, place, verdict = found
        largest = self._largest.get(lost.key)
        return lost, place, verdict if largest is not None and largest.id == file.id else Verdict.WAIT

    def _copied(self, file: Found, fd: int, *, held: bool) -> tuple[Lost, Place, Verdict] | None:
        """The emptied file of which this is a copy: rather one that it goes on from than one that it is a part of."""
        emptied = reversed(self._lost.values())  # of several that it may be a part of, the latest
        found = [(lost, *match) for lost in emptied if (match := _in_copy(lost, file, fd, held=held)) is not None]
        return max(found, key=lambda each: (each[0].place.offset == each[1].offset, each[1].offset), default=None)


def _rank(copy: Found) -> tuple[int, bool]:
    return copy.size, copy.configured or bool(copy.rotated)


def _in_copy(lost: Lost, file: Found, fd: int, *, held: bool) -> tuple[Place, Verdict] | None:
    """The place of an emptied file's position in its copy, COPY or EDITED; None if the file is not its copy.

    A copy that ends before the position was read completely from the original. It is recognised by a full head, or by
    windows: a shorter head reaches up to the position.
    """
    evidence = lost.place.evidence(fd)
    if evidence.is_its_inode:  # a file is no copy of itself, though it may begin again as it did before
        return None
    rotated = lost.has_family(file.family) and file.path != file.family
    match with_other_inode(evidence, Own.EMPTIED, is_rotated_name=rotated):
        case Verdict.COPY:
            return lost.place.in_file(fd), Verdict.COPY
        case Verdict.EDITED:
            return lost.place.in_file(fd).edited(fd), Verdict.EDITED
    if evidence.long_enough or not file.size:
        return None
    windows = lost.place.windows_in(fd, file.size)
    has_head = evidence.head_fits and lost.place.head_bytes >= ENOUGH_BYTES and any(windows)
    if all(windows) and (has_head or (rotated and (held or evidence.head_fits))):
        return place_at(fd, file.size, lost.place.head_start), Verdict.COPY
    return None
