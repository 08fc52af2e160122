"""All files of one source, through every rotation: which to follow, from where, in what order, and until when.

There is no clock and no task here: time is an argument, so rotations are tested without sleeping. Only one thread at a
time uses a follower, except for `committed`, `forgotten`, `lag_bytes` and `files`, which are safe to call from another
thread.

    scan    each listed file ─┬─ followed already: unchanged, renamed or gone
                              ├─ the file of a lost position (lost.py): followed from there          (adopt.py)
                              └─ unknown: followed from its start, unless it is an old file or a copy
    read    one block of each file that has new data, in turn (reading.py)

Rotation by rename is noticed because an open file keeps its identity whatever its path. Files that were created and
rotated between two scans are found by their rotated names. Rotation by copy and truncate is noticed in `Tail.read`: the
position then passes to the copy, if there is one, so that the unread rest is read from there and nothing twice.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from logfwd.sources.file.absent import Absent
from logfwd.sources.file.adopt import Adoption
from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.handle import id_of
from logfwd.sources.file.identity import FileId, Moved, open_same
from logfwd.sources.file.newcomers import Newcomers
from logfwd.sources.file.notify import Inotify
from logfwd.sources.file.reading import Reading
from logfwd.sources.file.released import DOUBT, from_marks, is_doubtful
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Finder, Found, Others, Troubles
from logfwd.sources.file.scanned import SCAN_KEY
from logfwd.sources.file.tail import Tail
from logfwd.sources.formats.encodings import FIRST_BYTES
from logfwd.sources.formats.text import Count, ignore
from logfwd.sources.position import Mark
from logfwd.sources.settings import FileSource

FULL_SCAN_SECONDS = 10.0
"""How often files are listed although no directory has changed: a link may have, or a released file may have grown."""

BLOCKS = 8
"""Records that are made from decoded lines come in blocks that cannot be cut, so that many of them fill a batch."""

LISTING_TRIES, UNSTABLE_SCANS = 5, 10


class Follower:
    """Follows the files of one source."""

    def __init__(
        self,
        settings: FileSource,
        positions: Mapping[str, Mark],
        *,
        block_bytes: int,
        max_record_bytes: int,
        notifier: Inotify | None = None,
        others: Others = tuple,
        count: Count = ignore,
        report: Report | None = None,
    ) -> None:
        report = report or Report()
        finder = Finder(settings, others, Troubles(report))
        self._files = FollowedFiles(settings, finder, positions, max_record_bytes, notifier, count, report)
        self._absent = Absent(self._files.lost, settings, report)
        self._adoption = Adoption(self._files, positions)
        self._newcomers = Newcomers(self._files, self._adoption)
        plain = settings.format in ("json", "raw")
        self._reading = Reading(self._files, block_bytes if plain else max(block_bytes // BLOCKS, FIRST_BYTES))
        self.read = self._reading.read
        self._full_scan_at = 0.0
        self._stamps: dict[str, int] = {}  # the directories' times of last change, as of the last listing
        self._unstable = 0  # scans in a row during which files were renamed
        lost, unreadable = from_marks({key: mark for key, mark in positions.items() if key != SCAN_KEY})
        self._files.stored.forget(unreadable)
        for each in lost:
            self._files.lost.add(each)
            self._adoption.note_upgraded(each)

    @property
    def scan_wanted(self) -> bool:
        """True if a scan should not wait for its time."""
        return self._files.scan_wanted

    @scan_wanted.setter
    def scan_wanted(self, wanted: bool) -> None:
        self._files.scan_wanted = wanted

    def end_due(self, now: float) -> float:
        """Do what time asks for between two reads; returns when it does so again."""
        if self._adoption.archives.step(now):
            return now
        return self._reading.end_due(now)

    # -- for other threads ---------------------------------------------------------------------------------------

    def committed(self, positions: Mapping[str, Mark]) -> None:
        self._files.stored.commit(positions)

    def forgotten(self) -> list[str]:
        return self._files.stored.take_forgotten()

    def unreadable(self) -> dict[str, str]:
        """Why, by path."""
        return self._files.finder.troubles.known()

    def lag_bytes(self) -> int:
        return sum(
            max(tail.size - tail.zeros_at_end - self._files.stored.offsets.get(tail.key, tail.size), 0)
            for tail in list(self._files.tails.values())
        )

    def files(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """How far the followed files were read, those with the most left first; and how many others there are."""
        tails = list(self._files.tails.values())
        rows = [
            {
                "path": tail.path,
                "size_bytes": tail.size,
                "offset": self._offset(tail),
                "unread_bytes": self._unread(tail),
            }
            for tail in heapq.nlargest(most, tails, key=self._unread)
        ]
        return rows, len(tails) - len(rows)

    def _offset(self, tail: Tail) -> int:
        return self._files.stored.offsets.get(tail.key, tail.place.offset)

    def _unread(self, tail: Tail) -> int:
        return max(tail.size - tail.zeros_at_end - self._offset(tail), 0)

    @property
    def needs_polling(self) -> bool:
        """True while a file is open that has no watch."""
        return not self._files.opened.all_watched

    def close(self) -> None:
        self._files.opened.close_all()

    def written(self, watches: Iterable[int], paths: Iterable[str], now: float) -> None:
        """These watches reported a write, and those of directories writes to these paths."""
        opened = self._files.opened
        for tail in (*map(opened.watched, watches), *map(opened.closed_at, paths)):
            if tail is not None:
                tail.active_at = now
                self._files.enqueue(tail)

    def follow_new(self, paths: Collection[str], now: float, wall_ms: int) -> None:
        """Files were made or written to at these paths: follow those that are certainly new without a scan."""
        self._newcomers.follow(paths, now, wall_ms)

    def poll(self, now: float) -> None:
        """Look at every open file, where there is no inotify."""
        for tail in list(self._files.opened.tails):
            try:
                self._files.look(tail, now)
            except OSError as error:
                self._files.trouble(tail, error)

    def scan(self, now: float, wall_ms: int) -> None:
        """Match listed files with the known ones; if nothing can have changed, only look at the known ones."""
        if self._is_calm(now):
            self.poll(now)
            return
        self._files.scan_wanted = self._files.incomplete = False  # first: what happens now may ask for the next scan
        self._files.crowded = False
        self._files.finder.note_renames(self._files.opened.take_renames())
        self._newcomers.begin_scan()
        deleted = [tail for tail in self._files.opened.tails if tail.gone and not os.fstat(tail.fd).st_nlink]
        found, strays = self._list(self._directories(absent=True), now)
        # Known files come first: one that was truncated or is gone gives up its position, which a copy or a renamed
        # file may take over. New ones are adopted only in a scan that leaves no such question open (`scan_wanted`).
        every = {file.id: file for file in strays} | found
        for tail in list(self._files.tails.values()):
            tail.listed_at = every[tail.id].path if tail.id in every else ""
            try:
                self._relocate(tail, found.get(tail.id), now)
            except OSError as error:
                self._files.trouble(tail, error)
        if not self._files.scan_wanted or self._unstable > UNSTABLE_SCANS:
            self._adoption.adopt_all(every, self._stamps.keys(), now, wall_ms)
            for tail in deleted:
                tail.deletion_listed = True
        self._settle(now)
        self._files.limit_deleted()
        is_whole = not self._files.scan_wanted and not self._files.crowded
        listed = self._stamps.keys() if is_whole else ()  # nothing is given up while a file waits to be looked at
        self._files.stored.forget(self._absent.expire(now, listed, {file.path for file in found.values()}))
        self._files.stored.announced |= self._absent.aged()
        self._files.scan_wanted |= self._absent.search_wanted
        self._absent.search_wanted = False
        self._files.opened.watch_directories(self._stamps.keys() | self._files.finder.roots, self._files.tails.values())
        self._full_scan_at = now + FULL_SCAN_SECONDS

    def _is_calm(self, now: float) -> bool:
        """True if no directory has changed since the last scan, and nothing waits for a scan."""
        return (
            now < min(self._full_scan_at, self._adoption.held.deadline())
            and not self._files.scan_wanted
            and not self._absent.is_searching
            and self._files.finder.is_plain
            and not self._adoption.archives.is_busy
            and all(tail.fd >= 0 and tail.rotated_at is None for tail in self._files.tails.values())
            and self._files.finder.stamps(self._directories(absent=False)) == self._stamps
        )

    def _directories(self, *, absent: bool) -> set[str]:
        """The directories that contain files of ours, did so before, or may in future.

        `absent`: also those of lost positions that the last listing lacked. There may be thousands of them.
        """
        followed = {os.path.dirname(family) or "." for family in self._files.families()}
        lost = {os.path.dirname(path) or "." for path in self._files.lost.paths()}
        return self._files.finder.directories | followed | (lost if absent else lost & self._stamps.keys())

    def _relocate(self, tail: Tail, found: Found | None, now: float) -> None:
        """Note that a followed file is where it was, has another name, or has no configured name any more."""
        if found is None and not tail.gone:
            tail.gone, tail.rotated_at = True, now
        elif found is not None and tail.place.archive is not None:
            tail.path = found.path
        elif found is not None:
            tail.gone = False
            if found.path != tail.path and not _leads_to(tail.path, tail.id):
                if tail.fd < 0 and self._is_another(tail, found):
                    return  # the other file is adopted in this scan
                tail.path, tail.rotated_at = found.path, now
        if tail.fd < 0 and found is None:
            self._files.retire(tail)  # this scan looks for it by its inode
        else:
            self._files.look(tail, now, found)

    def _list(self, directories: set[str], now: float) -> tuple[dict[FileId, Found], list[Found]]:
        """Configured files, and others that may be ours under a rotated name.

        A listing can lack files that are renamed while it is made, so it is repeated until no directory changes. It is
        repeated, too, if it leads to a directory that was not known: there may be rotated files.
        """
        families = self._files.families() | self._files.lost.families()
        inodes = self._files.lost.inodes() | {tail.id[1] for tail in self._files.tails.values() if tail.fd < 0}
        whole = self._absent.searched(now)
        for _ in range(LISTING_TRIES):
            stamps = self._files.finder.stamps(directories)
            found = self._files.finder.configured()
            names = {file.path for file in found.values()}
            strays = list(self._files.finder.strays(stamps, inodes, families, whole, names))
            if new := {os.path.dirname(name) or "." for name in names} - directories:
                directories |= new
            elif self._files.finder.stamps(directories) == stamps:
                self._stamps = stamps
                self._unstable = 0
                break
        else:
            self._stamps = stamps
            self._unstable += 1
            self._files.scan_wanted = self._files.incomplete = True
        return found, strays

    def _is_another(self, tail: Tail, found: Found) -> bool:
        """True if the inode of a closed file now belongs to another one, under another path: notes it as deleted."""
        try:
            fd = open_same(found.path, found.id)
        except (Moved, OSError):
            return False  # the next opening decides
        try:
            same, may_repeat = tail.place.is_of(fd), tail.place.fits(fd)
        finally:
            os.close(fd)
        written_ms = tail.mtime_ns // 1_000_000
        doubtful = same is None and is_doubtful(found, tail.path, tail.family, written_ms, missed=False)
        is_said = doubtful and may_repeat
        if is_said:
            self._files.report.read_again(found.path, tail.place.offset, DOUBT)
        if doubtful or same is False:
            self._files.deleted(tail, is_said=is_said)
        return doubtful or same is False

    def _settle(self, now: float) -> None:
        """Read the unfinished last line of rotated files that are no longer written to, then release the files."""
        for tail in list(self._files.tails.values()):
            if tail.gone and tail.is_deleted and self._files.is_done(tail):
                self._files.settle(tail)
            if tail.ready or not self._files.is_quiet(tail, now):
                continue
            if tail.unread_bytes > 0 or (tail.lines is not None and tail.lines.has_open):
                self._files.enqueue(tail)
            elif self._files.can_retire(tail):
                self._files.settle(tail)
                if tail.gone:
                    self._files.retire(tail)
                else:
                    tail.rotated_at = None


def _leads_to(path: str, id_: FileId) -> bool:
    try:
        return id_of(os.stat(path)) == id_
    except OSError:
        return False
