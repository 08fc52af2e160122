"""Positions whose file is not followed now: stored ones after a start, and those of released files.

Which file takes over such a position is decided in which.py; here it is looked for. Files with the inode come first,
then those with the same head. Without handles, a file with inode and content of one that went away may be a new one:
then it is read from its start, and the possible repeats are reported.

A position ages while its file is not there and its directory can be looked into, and is forgotten after
`forget_after`. Its age survives restarts in steps of an hour; the time between two lives does not count.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from logfwd.sources.file.copies import Emptied
from logfwd.sources.file.identity import Head, Place, begins_alike, head_of, open_same
from logfwd.sources.file.names import bases
from logfwd.sources.file.released import DOUBT, REWRITTEN, Lost, is_doubtful
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Found, Troubles
from logfwd.sources.file.which import LEAST_BYTES, Own, Verdict, with_other_inode, with_same_inode
from logfwd.sources.position import Position, tail_hash
from logfwd.sources.settings import FileSource

CANDIDATES, LIKE = 64, 4
"""How many positions with the same head are compared with a file; how many of them to tell what it may repeat."""

MAX_LOST = 10_000
"""More positions of absent files than this are not kept, however young they are."""

AGING_SECONDS, STORED_AGE_SECONDS = 10.0, 3600

SEARCH_SECONDS = 5.0
"""How long the rest of a file that was emptied or is gone is looked for before that is said."""


class LostPositions:
    """The lost positions of one source, by key."""

    def __init__(self, settings: FileSource, troubles: Troubles, report: Report) -> None:
        self._lost: dict[str, Lost] = {}
        self._by_head: dict[Head, dict[str, Lost]] = {}
        self._by_path: dict[str, Lost] = {}  # of several with one path, the latest
        self.emptied = Emptied()
        self._deleted: list[str] = []
        self._deleted_lately: deque[tuple[str, Place]] = deque(maxlen=CANDIDATES)
        self._troubles, self._report = troubles, report
        self._search_seconds = min(settings.rotated_wait_seconds, SEARCH_SECONDS)
        self._forget_seconds = settings.forget_after_seconds
        self._head_start = settings.header_bytes
        self._aged_at: float | None = None
        self.on_deleted: Callable[[Lost], None] = lambda _: None  # takes positions of deleted files
        self.search_wanted = False
        """A file is to be looked for in a whole directory that the last scan has not listed so."""
        self.generation = 0
        """Goes up with each position that is added: what fitted none before may fit one now."""

    def add(self, lost: Lost) -> None:
        self._lost[lost.key] = lost
        self._by_head.setdefault(lost.place.head, {})[lost.key] = lost
        self._by_path[lost.path] = lost
        if lost.truncated:
            self.emptied.add(lost)
        self.generation += 1

    def take(self, lost: Lost) -> None:
        """Remove a position that a file has taken over."""
        del self._lost[lost.key]
        self.emptied.discard(lost)
        if self._by_path.get(lost.path) is lost:
            del self._by_path[lost.path]
        same = self._by_head[lost.place.head]
        del same[lost.key]
        if not same:
            del self._by_head[lost.place.head]

    def discard(self, key: str) -> None:
        """Remove the position with this key, if it is here."""
        if key in self._lost:
            self.take(self._lost[key])

    def could_be(self, file: Found) -> bool:
        """True if name, family or inode of a file are those of a lost position."""
        return any(lost.place.inode == file.id[1] or lost.has_family(file.path) for lost in self._lost.values())

    def inodes(self) -> set[int]:
        return {lost.place.inode for lost in self._lost.values()}

    def families(self) -> set[str]:
        return {lost.family for lost in self._lost.values()}

    def paths(self) -> set[str]:
        return {lost.path for lost in self._lost.values()}

    @property
    def is_searching(self) -> bool:
        """True while the rest of a file is looked for."""
        return any(lost.since is not None and not lost.settled for lost in self._lost.values())

    def searched(self, now: float) -> set[str]:
        """Directories in which any file may be the rest of one that was emptied or is gone."""
        self.emptied.begin_search(now)
        return {
            os.path.dirname(lost.path) or "."
            for lost in self._lost.values()
            if lost.since is not None and now - lost.since <= self._search_seconds
        }

    def expire(self, now: float, present: Collection[str], configured: Collection[str]) -> Iterator[str]:
        """Remove the positions of files that are deleted or were away for too long; yields their keys.

        `present`: the directories that were listed. `configured`: the paths of the files that were.
        """
        gone = [lost for lost in self._lost.values() if self._search(lost, now, present, configured)]
        self._report.gone_while_stopped([(lost.path, lost.place.offset) for lost in gone])
        for lost in [each for each in self._lost.values() if each.truncated and each.settled]:
            self._deleted += self._delete(lost)  # no copy is left that its position could pass to
        yield from self._deleted
        self._deleted = []
        if self._aged_at is None or now - self._aged_at >= AGING_SECONDS:
            passed, self._aged_at = now - (now if self._aged_at is None else self._aged_at), now
            yield from self._age(passed, present)

    def _search(self, lost: Lost, now: float, present: Collection[str], configured: Collection[str]) -> bool:
        """Begin to look for the rest of a file, or say that it is not found.

        True if that is to be said together with others: the file is gone since an earlier life, and so is its name.
        """
        if lost.seen or lost.settled:
            lost.since = None
        elif lost.since is None:
            if _directory(lost.path) in present:
                is_known = lost.id is not None or lost.place.archive is not None
                lost.settled = is_known and not lost.unread_bytes and not lost.truncated
                lost.since = None if lost.settled else now
                self.search_wanted |= not lost.settled
        elif now - lost.since > self._search_seconds and _directory(lost.path) in present:
            lost.settled = True
            if lost.id is not None or lost.place.archive is not None:
                self._report.gone_unread(lost.path, lost.unread_bytes)
                lost.unread_bytes = 0
            elif lost.path in configured:
                self._report.not_found(lost.path, lost.place.offset)
            else:
                return True
        return False

    def _age(self, passed: float, present: Collection[str]) -> Iterator[str]:
        can_look: dict[str, bool] = {}
        for lost in list(self._lost.values()):
            if lost.seen:
                lost.away_seconds = 0.0
                continue
            directory = _directory(lost.path)
            if directory not in can_look:
                can_look[directory] = directory in present or _is_gone(directory)
            if can_look[directory]:
                lost.away_seconds += passed
            if lost.away_seconds >= self._forget_seconds:
                yield from self._delete(lost)
        if (over := len(self._lost) - MAX_LOST) > 0:
            absent = sorted(
                (each for each in self._lost.values() if not each.seen), key=lambda each: -each.away_seconds
            )
            for lost in absent[: over + MAX_LOST // 10]:
                yield from self._delete(lost)
            self._report.forgotten(len(absent[: over + MAX_LOST // 10]))

    def _delete(self, lost: Lost) -> list[str]:
        self.take(lost)
        self._report.gone_unread(lost.path, lost.unread_bytes)
        return [lost.key]

    def aged(self) -> dict[str, Position]:
        """Positions that are settled since they were stored, or whose stored age is more than an hour behind."""
        late = (
            lost
            for lost in self._lost.values()
            if lost.place.offset
            and (lost.away_seconds - lost.stored_age >= STORED_AGE_SECONDS or lost.settled > lost.stored_settled)
        )
        return {lost.key: lost.position() for lost in late}

    # -- by inode ------------------------------------------------------------------------------------------------

    def claims(self, unknown: list[Found], present: Collection[str]) -> list[tuple[Found, Lost]]:
        """Files of lost positions by inode, handle and content, oldest first. `present`: directories that were listed.

        Removes from `unknown` every file that must not be taken for a new one: these, files read to their end, and
        files that cannot be read now. Raises Moved.
        """
        by_inode: dict[int, list[Lost]] = {}
        for lost in self._lost.values():
            lost.seen = False
            by_inode.setdefault(lost.place.inode, []).append(lost)
        inodes = {file.id[1] for file in unknown}
        for lost in self._lost.values():
            lost.missed = lost.missed or (lost.place.inode not in inodes and _directory(lost.path) in present)
        claims: list[tuple[Found, Lost]] = []
        for file in [file for file in unknown if file.id[1] in by_inode]:
            candidates = by_inode[file.id[1]]
            if (fitting := self._compare(file, candidates)) is None:
                unknown.remove(file)
                continue
            candidates[:] = [lost for lost in candidates if lost.key in self._lost]
            if fitting:
                unknown.remove(file)
                best = max(fitting, key=lambda lost: lost.place.offset)
                candidates.remove(best)
                if best.has_more(file):
                    claims.append((file, best))
        return sorted(claims, key=lambda claim: claim[0].age_order)

    def _compare(self, file: Found, candidates: list[Lost]) -> list[Lost] | None:
        """Those of these positions that are of this file; None if it cannot be read now."""
        try:
            fd = open_same(file.path, file.id)
            try:
                return [lost for lost in candidates if self._is_of(file, fd, lost)]
            finally:
                os.close(fd)
        except OSError as error:
            self._troubles.note(file.path, error.strerror or str(error))
            for lost in candidates:
                lost.seen = True
            return None

    def _is_of(self, file: Found, fd: int, lost: Lost) -> bool:
        """True if a file with the inode of a lost position is its file; notes what it means for the position."""
        if lost.place.archive is not None:
            lost.seen = lost.place.archive.is_of(fd)
            lost.missed = not lost.seen
            return lost.seen
        evidence = lost.place.evidence(fd)
        verdict = with_same_inode(evidence)
        if verdict is Verdict.EMPTIED:
            its_own = evidence.same_handle or lost.path == file.path or lost.has_family(file.family)
            if its_own and not lost.truncated:
                self.emptied.add(lost)
            if its_own and not lost.judged:
                lost.settled, lost.judged = False, True
                self._report.read_again(file.path, lost.place.kept_bytes(fd, same=True), REWRITTEN)
            return False
        doubtful = evidence.same_handle is None and is_doubtful(
            file, lost.path, lost.family, lost.written_ms, missed=lost.missed
        )
        if verdict is Verdict.ANOTHER or doubtful:
            if doubtful:
                self._report.read_again(file.path, lost.place.offset, DOUBT)
            if lost.id == file.id:  # its inode was used again, so its file is deleted
                self.take(lost)
                self.on_deleted(lost)
                self.note_deleted(lost.path, lost.place)
            return False
        if verdict is Verdict.EDITED:
            self._report.edited(file.path, lost.place.offset)
            self.take(lost)
            lost.place = lost.place.edited(fd)
            self.add(lost)
        lost.seen, lost.missed, lost.seen_at = True, False, file.path
        return True

    def alike(self, head: bytes, family: str) -> list[Lost]:
        """Positions whose file began as this content does: by 1 KiB, or by less of it within a family."""
        same_head = self._by_head.get((self._head_start, len(head), tail_hash(head)), {})
        alike = dict(islice(reversed(same_head.items()), CANDIDATES))
        family_of = {key: each for key, each in self._lost.items() if each.has_family(family)}
        return list((alike | {key: each for key, each in family_of.items() if each.place.begins_with(head)}).values())

    # -- by content ----------------------------------------------------------------------------------------------

    def by_content(self, file: Found, fd: int, *, held: bool) -> tuple[Lost, Place, Verdict] | None:
        """The position that this file has to do with by its content, its place in the file, and what the file is.

        `held`: the file was seen as a copy while its original was still whole.
        """
        if (copied := self.emptied.copied_by(file, fd, held=held)) is not None:
            return copied
        found: tuple[Lost, Place, Verdict] | None = None
        for lost in self._nearest(file, head_of(fd, self._head_start)):
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
        alike = (lost for lost in self._lost.values() if lost.has_family(file.family)) if rotated else ()
        for lost in (*self._nearest(file, head), *alike):
            if lost.seen and _is_part(fd, lost):
                return lost, lost.place, Verdict.WAIT
        return None

    def note_deleted(self, path: str, place: Place) -> None:
        """Remember what was read of a deleted file, to say what a new one like it repeats."""
        self._deleted_lately.append((path, place))

    def kept_bytes(self, file: Found, fd: int) -> int:
        """How many bytes that were read of other files may be at the start of this one."""
        emptied = [lost for lost in self._lost.values() if lost.truncated and lost.place.inode != file.id[1]]
        names = {file.path, file.family, *bases(file.path)}
        near = [*self._nearest(file, head_of(fd, self._head_start))[:LIKE], *map(self._by_path.get, names)]
        like = [lost for lost in near if lost and not lost.truncated]
        places = [place for path, place in self._deleted_lately if path in names]
        places += [lost.place for lost in (*emptied[-LIKE:], *like) if lost.place.archive is None]
        return max((place.kept_bytes(fd, same=False) for place in places), default=0)

    def _nearest(self, file: Found, head: Head) -> list[Lost]:
        """Some of the positions with this head, those with the file's names first; thousands of files may be alike."""
        if head[1] < LEAST_BYTES:
            return []
        alike = (*islice(reversed(self._by_head.get(head, {}).values()), CANDIDATES), self._by_path.get(file.path))
        same = {each.key: each for each in alike if each and each.place.head == head and not each.truncated}
        name = os.path.basename(file.path)
        nearness = {each.key: (each.path != file.path, os.path.basename(each.path) != name) for each in same.values()}
        return sorted(same.values(), key=lambda lost: (nearness[lost.key], -lost.place.offset))


def _is_part(fd: int, lost: Lost) -> bool:
    """True for a file that begins as the present file of a position does, and ends before it."""
    try:
        other = os.open(lost.seen_at, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        is_its_own = os.fstat(other).st_ino == lost.place.inode
        return is_its_own and 0 < size < lost.place.offset and begins_alike(fd, other)
    finally:
        os.close(other)


def _directory(path: str) -> str:
    return os.path.dirname(path) or "."


def _is_gone(directory: str) -> bool:
    try:
        os.stat(directory)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False
