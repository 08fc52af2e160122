"""Lost positions while their files are not there: their rest is looked for, they age, and are forgotten in the end.

A position ages while its file is not there and its directory can be looked into, and is forgotten after
`forget_after`. Its age survives restarts in steps of an hour; the time between two lives does not count.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from logfwd.sources.file.lost import LostPositions
from logfwd.sources.file.released import Lost
from logfwd.sources.file.report import Report
from logfwd.sources.position import Position
from logfwd.sources.settings import FileSource

MAX_LOST = 10_000
"""More positions of absent files than this are not kept, however young they are."""

AGING_SECONDS, STORED_AGE_SECONDS = 10.0, 3600

SEARCH_SECONDS = 5.0
"""How long the rest of a file that was emptied or is gone is looked for before that is said."""


class Absent:
    """What becomes of the lost positions of one source."""

    def __init__(self, lost: LostPositions, settings: FileSource, report: Report) -> None:
        self._lost, self._report = lost, report
        self._search_seconds = min(settings.rotated_wait_seconds, SEARCH_SECONDS)
        self._forget_seconds = settings.forget_after_seconds
        self._aged_at: float | None = None
        self.search_wanted = False
        """A file is to be looked for in a whole directory that the last scan has not listed so."""

    @property
    def is_searching(self) -> bool:
        """True while the rest of a file is looked for."""
        return any(lost.since is not None and not lost.settled for lost in self._lost)

    def searched(self, now: float) -> set[str]:
        """Directories in which any file may be the rest of one that was emptied or is gone."""
        self._lost.emptied.begin_search(now)
        return {
            lost.directory for lost in self._lost if lost.since is not None and now - lost.since <= self._search_seconds
        }

    def expire(self, now: float, present: Collection[str], configured: Collection[str]) -> Iterator[str]:
        """Remove the positions of files that are deleted or were away for too long; yields their keys.

        `present`: the directories that were listed. `configured`: the paths of the files that were.
        """
        gone = [lost for lost in self._lost if self._search(lost, now, present, configured)]
        self._report.gone_while_stopped([(lost.path, lost.place.offset) for lost in gone])
        for lost in [each for each in self._lost if each.truncated and each.settled]:
            yield self._delete(lost)  # no copy is left that its position could pass to
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
            if lost.directory in present:
                is_known = lost.id is not None or lost.place.archive is not None
                lost.settled = is_known and not lost.unread_bytes and not lost.truncated
                lost.since = None if lost.settled else now
                self.search_wanted |= not lost.settled
        elif now - lost.since > self._search_seconds and lost.directory in present:
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
        for lost in list(self._lost):
            if lost.seen:
                lost.away_seconds = 0.0
                continue
            if lost.directory not in can_look:
                can_look[lost.directory] = lost.directory in present or _is_gone(lost.directory)
            if can_look[lost.directory]:
                lost.away_seconds += passed
            if lost.away_seconds >= self._forget_seconds:
                yield self._delete(lost)
        if (over := len(self._lost) - MAX_LOST) > 0:
            absent = sorted((each for each in self._lost if not each.seen), key=lambda each: -each.away_seconds)
            for lost in absent[: over + MAX_LOST // 10]:
                yield self._delete(lost)
            self._report.forgotten(len(absent[: over + MAX_LOST // 10]))

    def _delete(self, lost: Lost) -> str:
        self._lost.take(lost)
        self._report.gone_unread(lost.path, lost.unread_bytes)
        return lost.key

    def aged(self) -> dict[str, Position]:
        """Positions that are settled since they were stored, or whose stored age is more than an hour behind."""
        late = (
            lost
            for lost in self._lost
            if lost.place.offset
            and (lost.away_seconds - lost.stored_age >= STORED_AGE_SECONDS or lost.settled > lost.stored_settled)
        )
        return {lost.key: lost.position() for lost in late}


def _is_gone(directory: str) -> bool:
    try:
        os.stat(directory)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False
