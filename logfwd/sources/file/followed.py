"""The files that are followed, and what may be let go of.

`FollowedFiles` is the one table that scans (follow.py), new files (adopt.py) and reading (reading.py) change. It knows
which files are open, and which have their turn next.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping

from msgspec import structs

from logfwd.sources.file.alike import Alike
from logfwd.sources.file.beginnings import Beginnings
from logfwd.sources.file.identity import FileId, Moved, Place, end_of_lines, open_same
from logfwd.sources.file.lost import LostPositions
from logfwd.sources.file.notify import Inotify
from logfwd.sources.file.openfiles import OpenFiles
from logfwd.sources.file.records import Records
from logfwd.sources.file.released import Lost, lost_from
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Finder, Found
from logfwd.sources.file.stored import Stored
from logfwd.sources.file.tail import Deleted, Replaced, Tail
from logfwd.sources.file.which import Verdict, with_same_inode
from logfwd.sources.file.writers import has_writer
from logfwd.sources.formats.text import Count
from logfwd.sources.position import Mark
from logfwd.sources.settings import FileSource

UNWRITTEN_SECONDS, WRITTEN_SECONDS = 1.0, 3600.0
"""How long a rotated file is read on that has no writer any more, and one whose writer is silent."""

ROOM = 16
"""For a new file, so large a part of the open ones is closed."""


class FollowedFiles:
    """The files of one source, followed and lost."""

    def __init__(
        self,
        settings: FileSource,
        finder: Finder,
        positions: Mapping[str, Mark],
        max_record_bytes: int,
        notifier: Inotify | None,
        count: Count,
        report: Report,
    ) -> None:
        self.settings, self.finder = settings, finder
        self.report = report
        self.records = Records(settings, finder.name_of, max_record_bytes, count)
        self.lost = LostPositions()
        self.beginnings = Beginnings(report)
        self.alike = Alike(self.lost, self.beginnings, settings.header_bytes)
        self.stored = Stored(positions)
        self.opened = OpenFiles(settings.max_open_files, notifier)
        self.tails: dict[FileId, Tail] = {}
        """Every followed file, open or closed."""
        self.ready: deque[Tail] = deque()
        """Files that may have unread data, in the order of their turns; each is here at most once (`Tail.ready`)."""
        self.by_age: dict[str, list[Tail]] = {}
        """The files of each family, oldest first: each waits until the one before it was read."""
        self.plain_heads: list[bytes] = []
        """How the content of compressed files begins that may turn out to be that of other files (archives.py)."""
        self.deleted_originals: dict[str, Lost] = {}
        """Positions of deleted files of which such a compressed file may have been made."""
        self.scan_wanted = True
        self.incomplete = False
        """A scan left out files that it saw."""
        self.crowded = False
        """… because too many others are open."""
        self.left_out: list[Tail] = []
        """Which these were; they are not followed."""
        self.adoptions = 0
        """How many scans have decided about new files."""

    def families(self) -> set[str]:
        return {tail.family for tail in self.tails.values()}

    def look(self, tail: Tail, now: float, found: Found | None = None) -> None:
        """Queue a file that has changed since the last look. A compressed one does not."""
        if tail.place.archive is not None:
            return
        if found is not None:
            size, mtime_ns, ctime_ns = found.size, found.mtime_ns, found.ctime_ns
        else:
            status = os.fstat(tail.fd)
            size, mtime_ns, ctime_ns = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        written = (size, mtime_ns) != (tail.size, tail.mtime_ns)
        if size < tail.place.offset:
            self.truncated(tail)
        elif written or (ctime_ns != tail.ctime_ns and tail.fd < 0):  # a closed one may be another file by now
            if written and tail.mtime_ns >= 0:
                tail.active_at = now
            tail.size, tail.mtime_ns, tail.ctime_ns, tail.zeros_at_end = size, mtime_ns, ctime_ns, 0
            if found is not None and tail.fd >= 0 and not tail.first:  # it was empty when it was found
                tail.note_first()
            self.enqueue(tail)
        elif tail.is_filled:
            tail.active_at = now
            self.enqueue(tail)

    def enqueue(self, tail: Tail) -> None:
        if not tail.ready:
            tail.ready = True
            self.ready.append(tail)

    def trouble(self, tail: Tail, error: OSError) -> None:
        self.finder.troubles.note(tail.path, error.strerror or str(error))
        tail.mtime_ns = -1  # so the next look finds it changed and tries again

    def is_quiet(self, tail: Tail, now: float) -> bool:
        """True for a rotated or deleted file that nobody will go on writing to, as far as can be known."""
        if tail.rotated_at is None:
            return False
        if tail.place.archive is not None:
            return True
        wait_seconds = self.settings.rotated_wait_seconds
        quiet_seconds = now - max(tail.rotated_at, tail.active_at)
        if quiet_seconds < min(wait_seconds, UNWRITTEN_SECONDS):
            return False
        writer = has_writer(tail.fd) if tail.fd >= 0 else None
        if writer is None:
            return quiet_seconds >= wait_seconds
        return not writer or quiet_seconds >= max(wait_seconds, WRITTEN_SECONDS)

    def start(self, tail: Tail) -> bool:
        """Begin to follow a file; False if it cannot be opened now."""
        try:
            if not self.open(tail) or tail.id in self.tails:
                self.opened.close(tail)
                self.incomplete = self.crowded = True
                self.left_out.append(tail)
                return False
            status = os.fstat(tail.fd)
        except (Replaced, Deleted):  # after it was listed
            self.scan_wanted = self.incomplete = True
            return False
        except OSError as error:
            self.trouble(tail, error)
            self.incomplete = True
            return False
        if not tail.place.handle:
            tail.place = tail.place.in_file(tail.fd, tail.place.archive)
        self.records.prepare(tail)
        if tail.place.state and (tail.lines is None or not tail.lines.has_open):
            self.report.unfinished(tail.path)
            tail.place, tail.announce = structs.replace(tail.place, state=b""), True
            self.stored.drop_state(tail.key)
        tail.size, tail.mtime_ns, tail.ctime_ns = tail.content_bytes, status.st_mtime_ns, status.st_ctime_ns
        tail.note_first()
        self.tails[tail.id] = tail
        self.stored.offsets.setdefault(tail.key, tail.place.offset)
        self.enqueue(tail)
        return True

    def end_of(self, tail: Tail) -> Place:
        """The place after the last whole line; of those before the present position, if there is one."""
        size = tail.place.offset or None
        return end_of_lines(tail.fd, self.settings.encoding, tail.place.head_start, size)

    def open(self, tail: Tail) -> bool:
        return self.opened.open(tail, self._make_room)

    def _make_room(self) -> bool:
        """Close the least recently active files that can be opened again, or release rotated ones that are done.

        Several at a time, so that it costs little to look at them all. Those that are to be read come last, and those
        that may be memory-mapped: what is written to them is seen only while they are open. These, one at a time.
        """
        can_close = [
            tail for tail in self.opened.tails if not tail.gone or (self.is_done(tail) and not tail.awaits_heir)
        ]
        can_close.sort(key=lambda tail: (tail.ready, tail.zeros_at_end > 0, tail.active_at))
        closed, wanted = 0, max(self.settings.max_open_files // ROOM, 1)
        for tail in can_close:
            if closed == wanted or (closed and (tail.ready or tail.zeros_at_end)):
                break
            if tail.gone:
                self.retire(tail)
            elif self.is_done(tail) or os.fstat(tail.fd).st_nlink:
                self.opened.set_aside(tail)
            else:
                continue  # deleted and not read to its end: it could not be opened again
            closed += 1
        return closed > 0

    def is_done(self, tail: Tail) -> bool:
        """True for a file that was read to its end and is committed up to there."""
        return not tail.ready and tail.unread_bytes <= 0 and self.stored.has_all_of(tail)

    def can_retire(self, tail: Tail) -> bool:
        """True for a file that is done. A deleted one waits for one more listing: it may have been compressed."""
        if not self.is_done(tail):
            return False
        waits = not tail.deletion_listed and tail.is_deleted
        return not waits

    def drop(self, tail: Tail) -> None:
        """Stop following a file."""
        self.opened.close(tail)
        del self.tails[tail.id]
        if tail.ready:
            self.ready.remove(tail)
        if tail in (family := self.by_age.get(tail.family, [])):
            family.remove(tail)
            if not family:
                del self.by_age[tail.family]
        for heir in family:
            if heir.predecessor is tail:
                heir.predecessor = tail.predecessor
        tail.ready, tail.ended, tail.after, tail.predecessor = False, True, None, None

    def settle(self, tail: Tail) -> None:
        """Store that a rotated file was read to its end, so that nothing is missed when it is deleted.

        If it is deleted, its inode may belong to any other file from now on.
        """
        if tail.place.offset and not tail.settled:
            tail.settled = True
            if tail.is_deleted:
                tail.place = structs.replace(tail.place, inode=0)
            self.stored.announced[tail.key] = tail.position()

    def retire(self, tail: Tail) -> None:
        """Release a file that was read to its end or is not listed. Its position is kept unless it is deleted."""
        has_name = tail.fd >= 0 and os.fstat(tail.fd).st_nlink > 0
        deleted = tail.fd >= 0 and not has_name
        writer = deleted and has_writer(tail.fd)
        if writer or (writer is None and tail.active_at > (tail.rotated_at or 0.0)):
            self.report.let_go(tail.path, os.fstat(tail.fd).st_size - tail.place.offset)
        self.drop(tail)
        if not deleted and (tail.place.offset or (tail.size and tail.place.handle)):
            self._lose(tail, seen=has_name)
        else:
            self.report.gone_unread(tail.path, 0 if deleted else tail.size)
            self.forget_deleted(tail)

    def forget_deleted(self, tail: Tail) -> None:
        """Give up the position of a deleted file, unless it may have been compressed before."""
        self.alike.note_deleted(tail.path, tail.place)
        if any(map(tail.place.begins_with, self.plain_heads)):
            self.keep_deleted(lost_from(tail))
        else:
            self.stored.forget([tail.key])

    def inode_used_again(self, lost: Lost) -> None:
        """Another file has the inode of a released one, which is deleted therefore."""
        self.alike.note_deleted(lost.path, lost.place)
        self.keep_deleted(lost)

    def keep_deleted(self, lost: Lost) -> None:
        """Keep the position of a deleted file until this or the next scan knows of what compressed files are made."""
        self.deleted_originals[lost.key] = lost

    def replaced(self, tail: Tail) -> bool:
        """The bytes before the position have changed: the file was edited (True), or emptied and written anew."""
        if tail.place.archive is not None:
            self.truncated(tail)
            return False
        try:
            fd = open_same(tail.path, tail.id) if tail.fd < 0 else os.dup(tail.fd)
        except Moved:
            tail.mtime_ns, self.scan_wanted = -1, True
            return False
        try:
            if with_same_inode(tail.place.evidence(fd)) is Verdict.EDITED:
                self.report.edited(tail.path, tail.place.offset)
                tail.place = tail.place.edited(fd)
                self.enqueue(tail)
                return True
        finally:
            os.close(fd)
        self.truncated(tail)
        return False

    def limit_deleted(self) -> None:
        """Let go of the oldest deleted files while those that are held open use too much of the disk."""
        held: list[tuple[float, int, Tail]] = []
        for tail in self.opened.tails if self.settings.max_deleted_bytes else ():
            status = os.fstat(tail.fd)
            if tail.gone and not status.st_nlink:
                held.append((tail.rotated_at or 0.0, status.st_blocks * 512, tail))
        held.sort(key=lambda each: each[0])
        over = sum(size for _, size, _ in held) - self.settings.max_deleted_bytes
        for _, size, tail in held:
            if over <= 0:
                break
            over -= size
            self.report.let_go(tail.path, os.fstat(tail.fd).st_size - tail.place.offset)
            self.drop(tail)
            self.forget_deleted(tail)

    def truncated(self, tail: Tail) -> None:
        """The file was emptied in place: the next scan finds its present content as a new file."""
        was_open = tail.fd >= 0
        self.found_anew(tail)
        self.lost.add(structs.replace(lost_from(tail, truncated=True), was_open=was_open))

    def emptied_unread(self, tail: Tail) -> None:
        """The file was emptied before anything of it was read: its copy is read in its place, or what it had is lost.

        A copy that begins with a hole is not known by it; it is a file of its own.
        """
        self.found_anew(tail)
        if tail.first_at or not tail.is_unread:
            self.stored.forget([tail.key])
            self.lost.emptied.is_new = True
            return
        lost = structs.replace(lost_from(tail, truncated=True), place=tail.start_as_found(), was_open=True)
        self.lost.add(structs.replace(lost, unread_bytes=tail.found_bytes))

    def found_anew(self, tail: Tail) -> None:
        """Stop following a file until the next scan finds it again; what comes after it waits so long."""
        self.drop(tail)
        tail.replaced_at, self.scan_wanted = self.adoptions, True

    def _lose(self, tail: Tail, *, seen: bool) -> None:
        self.lost.add(lost_from(tail, seen=seen))

    def deleted(self, tail: Tail, *, is_said: bool = False) -> None:
        """A closed file was deleted and its inode used again; a scan finds the file that has it now.

        `is_said`: so is what that file may repeat.
        """
        self.drop(tail)
        if not is_said:
            self.alike.note_deleted(tail.path, tail.place)
        self.keep_deleted(structs.replace(lost_from(tail), unread_bytes=tail.size_closed - tail.place.offset))
