"""All files of one source, through every rotation: which to follow, from where, in what order, and until when.

There is no clock and no task here: time is an argument, so rotations are tested without sleeping. Only one thread at a
time uses a follower, except for `committed`, `forgotten` and `lag_bytes`, which are safe to call from another thread.

    scan    each listed file ─┬─ followed already: unchanged, renamed or gone
                              ├─ the file of a lost position (lost.py): followed from there
                              └─ unknown: followed from its start, unless it is an old file or a copy
    read    one block of each file that has new data, in turn; a file waits for its predecessor in its family

Rotation by rename is noticed because an open file keeps its identity whatever its path. Files that were created and
rotated between two scans are found by their rotated names. Rotation by copy and truncate is noticed in `Tail.read`: the
position then passes to the copy, if there is one, so that the unread rest is read from there and nothing twice.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from math import inf

from msgspec import structs

from logfwd.sources.file.held import Held
from logfwd.sources.file.identity import FileId, Moved, Place, begins_alike, end_of_lines, has_state, open_same
from logfwd.sources.file.lost import Lost, LostPositions, from_marks, is_doubtful, log_read_again, log_unread
from logfwd.sources.file.metadata import fields_by_name
from logfwd.sources.file.names import age_order
from logfwd.sources.file.notify import Inotify
from logfwd.sources.file.openfiles import OpenFiles
from logfwd.sources.file.scan import Finder, Found, Others
from logfwd.sources.file.tail import Compressed, Deleted, Replaced, Tail
from logfwd.sources.formats.encodings import FIRST_BYTES, encoding_of
from logfwd.sources.formats.joined import JoinedLines
from logfwd.sources.formats.text import Count, ignore
from logfwd.sources.lines import LineFormat, Lines
from logfwd.sources.position import Block, Mark
from logfwd.sources.settings import FileSource

CLOCK_TICK_MS = 20
"""The kernel sets file times from its last tick, so they are a little behind the clock."""

RECENT_MS = 10_000
"""A rotated file that no scan has seen counts as new if it was written at most this long before the last scan. This is
longer than a scan can be late, so a file that could not be opened for a moment, or that a listing lacked, is found."""

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
    ) -> None:
        self._settings, self._max_record_bytes = settings, max_record_bytes
        self._format = LineFormat(settings, max_record_bytes, count)
        self._block_bytes = (
            block_bytes if settings.format in ("json", "raw") else max(block_bytes // BLOCKS, FIRST_BYTES)
        )
        self._finder = Finder(settings, others)
        self._fields = fields_by_name(settings)
        self._lost = LostPositions(self._finder.troubles)
        self._files = OpenFiles(settings.max_open_files, notifier)
        self._tails: dict[FileId, Tail] = {}
        """Every followed file, open or closed."""
        self._ready: deque[Tail] = deque()
        """Files that may have unread data, in the order of their turns; each is here at most once (`Tail.ready`)."""
        self._newest: dict[str, Tail] = {}
        """The last adopted file of each family: the next one waits until it was read."""
        self._held = Held(settings.rotated_wait_seconds)
        self._compressed: set[tuple[FileId, int]] = set()
        """Compressed files with their times of last write: they are not opened again until they are written to."""
        self._family_since_ms: dict[str, float] = {}  # unseen rotated files are ours if written since then
        self._recent_ms = -inf  # … and since then, because earlier scans would have seen older ones
        self._committed: dict[str, int] = {key: mark.offset for key, mark in positions.items()}
        """Offsets on disk, by key. A deleted file stays open until all that was read of it is on disk."""
        self._committed_open = {key for key, mark in positions.items() if has_state(mark)}
        """Positions that hold a state: their files may still be needed."""
        self._forgotten: deque[str] = deque()
        """Keys whose positions the spool may delete with its next commit."""
        self._at_end = settings.start_at == "end" and not positions
        self.scan_wanted = True
        self._incomplete = False  # a scan left out files that it saw
        self._full_scan_at = 0.0
        self._stamps: dict[str, int] = {}  # the directories' times of last change, as of the last listing
        self._unstable = 0  # scans in a row during which files were renamed
        lost, unreadable = from_marks(positions)
        self._forget(unreadable)
        for each in lost:
            self._lost.add(each)
            since_ms = each.written_ms - CLOCK_TICK_MS
            for name in {each.family, each.path}:
                self._family_since_ms[name] = max(self._family_since_ms.get(name, -inf), since_ms)

    # -- for other threads ---------------------------------------------------------------------------------------

    def committed(self, positions: Mapping[str, Mark]) -> None:
        for key, mark in positions.items():
            if key in self._committed:
                self._committed[key] = mark.offset
                if self._format.has_readers:
                    (self._committed_open.add if has_state(mark) else self._committed_open.discard)(key)

    def forgotten(self) -> list[str]:
        return [self._forgotten.popleft() for _ in range(len(self._forgotten))]

    def lag_bytes(self) -> int:
        return sum(max(tail.size - self._committed.get(tail.key, tail.size), 0) for tail in list(self._tails.values()))

    @property
    def needs_polling(self) -> bool:
        """True while a file is open that has no watch."""
        return not self._files.all_watched

    @property
    def open_files(self) -> int:
        return len(self._files.tails)

    def close(self) -> None:
        self._files.close_all()

    # -- reading -------------------------------------------------------------------------------------------------

    def written(self, watches: Iterable[int], now: float) -> None:
        """These watches reported a write."""
        for watch in watches:
            if (tail := self._files.watched(watch)) is not None:
                tail.active_at = now
                self._enqueue(tail)

    def poll(self, now: float) -> None:
        """Look at every open file, where there is no inotify."""
        for tail in list(self._files.tails):
            try:
                self._look(tail, now)
            except OSError as error:
                self._trouble(tail, error)

    def read(self, now: float, wall_ms: int) -> Block | None:
        """The next block, from each file in turn; None when nothing more can be read now."""
        while self._ready:
            tail, successor = self._ready[0], None
            while tail.after is not None:
                if tail.after.ended:
                    tail.after = None
                else:
                    tail, successor = tail.after, tail
            if (block := self._read(tail, now, wall_ms)) is not None:
                self._ready.rotate(-1)
                return block
            if successor is not None:
                successor.after = None
            elif tail.ready:
                tail.ready = False
                self._ready.popleft()
        return None

    def _read(self, tail: Tail, now: float, wall_ms: int) -> Block | None:
        try:
            if not self._open(tail):
                tail.mtime_ns = -1  # so the next scan queues it again
                return None
            if tail.predecessor is not None and (block := self._inherited(tail, now, wall_ms)) is not None:
                return block
            block = tail.read(self._block_bytes, self._max_record_bytes, wall_ms, final=self._is_quiet(tail, now))
            if block is None:
                block = self._ended(tail, now, wall_ms)
                return block if block is None else self._with_fields(tail, block)
        except Replaced:
            self._truncated(tail)
            return None
        except Deleted:
            self._deleted(tail)
            self.scan_wanted = True
            return None
        except Moved:
            self.scan_wanted = True
            tail.mtime_ns = -1
            return None
        except Compressed:
            self._compressed.add((tail.id, os.fstat(tail.fd).st_mtime_ns))
            self._drop(tail)
            return None
        except OSError as error:
            self._trouble(tail, error)
            return None
        self._finder.troubles.over(tail.path)
        if block is not None:
            tail.active_at = now
            tail.size = max(tail.size, block.end)
            block = self._with_fields(tail, block)
        return block

    def _inherited(self, tail: Tail, now: float, wall_ms: int, *, has_heir: bool = False) -> Block | None:
        """Before the first lines of a file: the rest of its predecessor, and then what is open at its end.

        A file without lines of its own inherits only for one that has some (`has_heir`).
        """
        other = tail.predecessor
        if other is None or not (has_heir or os.fstat(tail.fd).st_size > tail.place.offset):
            return None
        if other.ended or not isinstance(other.lines, JoinedLines):
            tail.predecessor = None
            return None
        if (block := self._inherited(other, now, wall_ms, has_heir=True)) is not None:
            return block
        if (block := self._read(other, now, wall_ms)) is not None:
            return block
        tail.predecessor = other if not tail.place.offset else None
        return tail.inherit(other, wall_ms) if other.lines.has_open else None

    def _ended(self, tail: Tail, now: float, wall_ms: int) -> Block | None:
        """At the end of a file: its open records, if they have waited for long enough."""
        if tail.lines is None or not tail.lines.has_open:
            return None
        if self._is_quiet(tail, now):
            for heir in self._tails.values():
                if heir.predecessor is tail and isinstance(tail.lines, JoinedLines):
                    heir.predecessor = None
                    return heir.inherit(tail, wall_ms)
            return tail.end_records(wall_ms, everything=True)
        wait_seconds = self._format.wait_seconds
        if tail.lines.can_end and wait_seconds is not None and now - tail.active_at >= wait_seconds:
            return tail.end_records(wall_ms, everything=False)
        return None

    def end_due(self, now: float) -> float:
        """Queue the files with open records that have waited for long enough; returns when the next one has."""
        wait_seconds, next_at = self._format.wait_seconds, inf
        if wait_seconds is None:
            return next_at
        for tail in self._files.tails:
            if tail.lines is not None and tail.lines.can_end:
                if now - tail.active_at >= wait_seconds:
                    self._enqueue(tail)
                else:
                    next_at = min(next_at, tail.active_at + wait_seconds)
        return next_at

    def _trouble(self, tail: Tail, error: OSError) -> None:
        self._finder.troubles.note(tail.path, error.strerror or str(error))
        tail.mtime_ns = -1  # so the next look finds it changed and tries again

    def _is_quiet(self, tail: Tail, now: float) -> bool:
        """True for a rotated or deleted file that has not been written to for a while."""
        since = tail.rotated_at
        return since is not None and now - max(since, tail.active_at) >= self._settings.rotated_wait_seconds

    def _enqueue(self, tail: Tail) -> None:
        if not tail.ready:
            tail.ready = True
            self._ready.append(tail)

    # -- scanning ------------------------------------------------------------------------------------------------

    def scan(self, now: float, wall_ms: int) -> None:
        """Match listed files with the known ones; if nothing can have changed, only look at the known ones."""
        if self._is_calm(now):
            self.poll(now)
            return
        self.scan_wanted = self._incomplete = False  # first: what happens during the scan may ask for the next one
        directories = self._directories()
        found, strays = self._list(directories)
        # Known files come first: one that was truncated or is gone gives up its position, which a copy or a renamed
        # file may take over. New ones are adopted only in a scan that leaves no such question open (`scan_wanted`).
        for tail in list(self._tails.values()):
            try:
                self._relocate(tail, found.get(tail.id), now)
            except OSError as error:
                self._trouble(tail, error)
        if not self.scan_wanted or self._unstable > UNSTABLE_SCANS:
            self._adopt_all(self._unknown({file.id: file for file in strays} | found), now)
        self._settle(now)
        self._forget(self._lost.expire(now))
        self._at_end = False  # only what the first scan finds is old
        for family in self._families():
            self._family_since_ms.setdefault(family, wall_ms - CLOCK_TICK_MS)
        if not self._incomplete:
            self._recent_ms = wall_ms - RECENT_MS
            self._forget_families()
        self._files.watch_directories(self._stamps.keys() | self._finder.roots)
        self._full_scan_at = now + FULL_SCAN_SECONDS

    def _is_calm(self, now: float) -> bool:
        """True if no directory has changed since the last scan, and nothing waits for a scan."""
        return (
            now < min(self._full_scan_at, self._held.deadline())
            and not self.scan_wanted
            and self._finder.is_plain
            and all(tail.fd >= 0 and tail.rotated_at is None for tail in self._tails.values())
            and self._finder.stamps(self._directories()) == self._stamps
        )

    def _directories(self) -> set[str]:
        """The directories that contain files of ours, did so before, or may in future."""
        paths = self._families() | set(self._family_since_ms) | self._lost.paths()
        return self._finder.directories | {os.path.dirname(path) or "." for path in paths}

    def _adopt_all(self, unknown: list[Found], now: float) -> None:
        """Follow new files, oldest first. If one was moved meanwhile, the rest has to wait for the next scan."""
        adopted: list[Tail] = []
        try:
            claims = self._lost.claims(unknown, now)
            others = [(file, None) for file in sorted(unknown, key=lambda file: file.age_order)]
            for file, lost in [*claims, *others]:
                tail = self._adopt(file, now) if lost is None else self._resume(file, lost, now)
                if tail is not None:
                    adopted.append(tail)
        except Moved:
            self.scan_wanted = self._incomplete = True
        self._link(adopted)

    def _families(self) -> set[str]:
        return {tail.family for tail in self._tails.values()}

    def _forget_families(self) -> None:
        """Forget names in directories that are gone, unless a position of theirs is kept."""
        known = self._families() | self._lost.families()
        for family in self._family_since_ms.keys() - known:
            if (os.path.dirname(family) or ".") not in self._stamps:
                del self._family_since_ms[family]

    def _relocate(self, tail: Tail, found: Found | None, now: float) -> None:
        """Note that a followed file is where it was, has another name, or has no configured name any more."""
        if found is None and not tail.gone:
            tail.gone, tail.rotated_at = True, now
        elif found is not None:
            tail.gone = False
            if found.path != tail.path and not _leads_to(tail.path, tail.id):
                if tail.fd < 0 and self._is_another(tail, found):
                    self._deleted(tail)  # the other file is adopted in this scan
                    return
                tail.path, tail.rotated_at = found.path, now
        if tail.fd < 0 and found is None:
            self._retire(tail)  # this scan looks for it by its inode
        else:
            self._look(tail, now, found)

    def _look(self, tail: Tail, now: float, found: Found | None = None) -> None:
        """Queue a file that has changed since the last look."""
        if found is not None:
            size, mtime_ns, ctime_ns = found.size, found.mtime_ns, found.ctime_ns
        else:
            status = os.fstat(tail.fd)
            size, mtime_ns, ctime_ns = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        written = (size, mtime_ns) != (tail.size, tail.mtime_ns)
        if size < tail.place.offset:
            self._truncated(tail)
        elif written or (ctime_ns != tail.ctime_ns and tail.fd < 0):  # a closed one may be another file by now
            if written and tail.mtime_ns >= 0:
                tail.active_at = now
            tail.size, tail.mtime_ns, tail.ctime_ns = size, mtime_ns, ctime_ns
            self._enqueue(tail)

    def _list(self, directories: set[str]) -> tuple[dict[FileId, Found], list[Found]]:
        """Configured files, and others that may be ours under a rotated name.

        A listing can lack files that are renamed while it is made, so it is repeated until no directory changes.
        """
        families = self._families() | set(self._family_since_ms)
        inodes = self._lost.inodes() | {tail.id[1] for tail in self._tails.values() if tail.fd < 0}
        for _ in range(LISTING_TRIES):
            stamps = self._finder.stamps(directories)
            found, strays = self._finder.configured(), list(self._finder.strays(stamps, inodes, families))
            if self._finder.stamps(directories) == stamps:
                self._stamps = stamps
                self._unstable = 0
                break
        else:
            self._unstable += 1
            self.scan_wanted = self._incomplete = True
        return found, strays

    def _unknown(self, files: Mapping[FileId, Found]) -> list[Found]:
        """Files that are not followed."""
        self._compressed &= {(file.id, file.mtime_ns) for file in files.values()}
        self._held.keep(files)
        return [
            file
            for id_, file in files.items()
            if id_ not in self._tails and (id_, file.mtime_ns) not in self._compressed
        ]

    def _resume(self, file: Found, lost: Lost, now: float) -> Tail | None:
        """Follow a file from its lost position on."""
        moved = not file.configured or file.path != lost.path
        tail = Tail(
            lost.key,
            file.path,
            file.family if file.configured else lost.family,
            file.id,
            lost.place,
            self._settings.encoding,
            gone=not file.configured,
            active_at=now,
            rotated_at=now if moved else None,
        )
        if not self._start(tail):
            return None
        self._lost.take(lost)
        return tail

    @staticmethod
    def _is_another(tail: Tail, found: Found) -> bool:
        """True if the inode of a closed file now belongs to another one, under another path: the file was deleted."""
        try:
            fd = open_same(found.path, found.id)
        except (Moved, OSError):
            return False  # the next opening decides
        try:
            same = tail.place.is_of(fd)
        finally:
            os.close(fd)
        written_ms = tail.mtime_ns // 1_000_000
        if same is None and is_doubtful(found, tail.path, tail.family, written_ms, missed=False):
            log_read_again(found, tail.place.offset)
            return True
        return same is False

    def _adopt(self, file: Found, now: float) -> Tail | None:
        """Follow an unknown file, unless it is an old file or a copy."""
        since_ms = max(self._family_since_ms.get(file.family, inf), self._recent_ms)
        old = file.mtime_ns / 1_000_000 < since_ms
        if not file.configured and (not file.size or old) and not self._lost.awaits_copy(file.family):
            return None
        tail = Tail(
            uuid.uuid4().hex,
            file.path,
            file.family,
            file.id,
            Place(file.id[1]),
            self._settings.encoding,
            gone=not file.configured,
            active_at=now,
            rotated_at=None if file.configured else now,
        )
        if not self._start(tail):
            return None
        try:
            if file.path != file.family and not self._is_from_rotation(file, tail, now, old=old):
                self._undo(tail)
                return None
            if self._at_end:
                tail.place, tail.announce = self._end(tail), True
        except Moved:
            self._undo(tail)
            raise
        except OSError as error:
            self._trouble(tail, error)
            self._incomplete = True
            self._undo(tail)
            return None
        return tail

    def _undo(self, tail: Tail) -> None:
        """Stop following a file that has turned out not to be new."""
        self._drop(tail)
        self._committed.pop(tail.key, None)

    def _is_from_rotation(self, file: Found, tail: Tail, now: float, *, old: bool) -> bool:
        """True if a file with a rotated name has to be followed. A copy takes over its original's position."""
        if self._is_copy_of_followed(tail):
            return self._held.has_waited(file, now)
        if (copied := self._lost.copied(file, tail.fd, held=file.id in self._held)) is None:
            return file.configured or (file.size > 0 and not old)
        lost, place = copied
        if not file.configured and file.size <= place.offset and not place.state:
            return False
        self._lost.take(lost)
        del self._committed[tail.key]
        tail.key, tail.place, tail.announce = lost.key, place, True
        tail.lines = self._lines(tail)
        return True

    def _is_copy_of_followed(self, tail: Tail) -> bool:
        """True if the file may be a copy, perhaps unfinished, of a followed original that is still whole."""
        for original in list(self._tails.values()):
            if original.path != tail.family or original.rotated_at is not None:
                continue
            try:
                if not self._open(original, keep=tail) or begins_alike(tail.fd, original.fd):
                    return True
                if not original.place.fits(original.fd):
                    self._truncated(original)
            except Replaced:
                self._truncated(original)
            except Deleted:
                self._deleted(original)
                self.scan_wanted = True
        return False

    def _link(self, adopted: list[Tail]) -> None:
        """Make each new file wait for the one before it in its family."""
        for tail in sorted(adopted, key=lambda tail: age_order(tail.path, tail.family, tail.mtime_ns)):
            tail.after = tail.predecessor = self._newest.get(tail.family)
            self._newest[tail.family] = tail

    def _settle(self, now: float) -> None:
        """Read the unfinished last line of rotated files that are no longer written to, then release the files."""
        for tail in list(self._tails.values()):
            if tail.ready or not self._is_quiet(tail, now):
                continue
            if tail.size > tail.place.offset or (tail.lines is not None and tail.lines.has_open):
                self._enqueue(tail)
            elif not tail.gone:
                tail.rotated_at = None
            elif self._is_done(tail):
                self._retire(tail)

    # -- opening and letting go ----------------------------------------------------------------------------------

    def _start(self, tail: Tail) -> bool:
        """Begin to follow a file; False if it cannot be opened now."""
        try:
            if not self._open(tail) or tail.id in self._tails:
                self._files.close(tail)
                self._incomplete = True
                return False
            status = os.fstat(tail.fd)
        except (Replaced, Deleted):  # after it was listed
            self.scan_wanted = self._incomplete = True
            return False
        except OSError as error:
            self._trouble(tail, error)
            self._incomplete = True
            return False
        if not tail.place.handle:
            tail.place = tail.place.in_file(tail.fd)
        tail.lines = self._lines(tail)
        tail.size, tail.mtime_ns, tail.ctime_ns = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        self._tails[tail.id] = tail
        self._committed.setdefault(tail.key, tail.place.offset)
        self._enqueue(tail)
        return True

    def _lines(self, tail: Tail) -> Lines | None:
        """What makes records of the lines; None for lines that are records already."""
        fields_bytes = len(self._fields_of(tail))
        if (lines := self._format.reader(tail.key, fields_bytes + 1 if fields_bytes else 0)) is not None:
            encoding = encoding_of(self._settings.encoding, os.pread(tail.fd, FIRST_BYTES, 0))
            lines.restore(tail.place.state, lambda offset, size: os.pread(tail.fd, size, offset), encoding)
        return lines

    def _fields_of(self, tail: Tail) -> bytes:
        """What the name of its file adds to each record."""
        return b"" if self._fields is None else self._fields(self._finder.name_of(tail.family))

    def _with_fields(self, tail: Tail, block: Block) -> Block:
        return block if self._fields is None or not block.data else structs.replace(block, fields=self._fields_of(tail))

    def _end(self, tail: Tail) -> Place:
        return end_of_lines(tail.fd, self._max_record_bytes, self._settings.encoding)

    def _open(self, tail: Tail, keep: Tail | None = None) -> bool:
        return self._files.open(tail, lambda: self._make_room(keep))

    def _make_room(self, keep: Tail | None) -> bool:
        """Close the least recently active file that can be opened again, or release a rotated one that is done."""
        can_close = [tail for tail in self._files.tails if tail is not keep and (not tail.gone or self._is_done(tail))]
        while can_close:
            least = min(can_close, key=lambda tail: (tail.ready, tail.active_at))
            if least.gone:
                self._retire(least)
                return True
            if self._is_done(least) or os.fstat(least.fd).st_nlink:
                self._files.close(least)
                return True
            can_close.remove(least)  # deleted and not read to its end: it could not be opened again
        return False

    def _is_done(self, tail: Tail) -> bool:
        """True for a file that was read to its end and is committed up to there."""
        is_read = not tail.ready and tail.size <= tail.place.offset <= self._committed[tail.key]
        return is_read and not tail.place.state and tail.key not in self._committed_open

    def _drop(self, tail: Tail) -> None:
        """Stop following a file."""
        self._files.close(tail)
        del self._tails[tail.id]
        if tail.ready:
            self._ready.remove(tail)
        for heir in self._tails.values() if self._format.has_readers else ():
            if heir.predecessor is tail:
                heir.predecessor = tail.predecessor
        tail.ready, tail.ended, tail.after, tail.predecessor = False, True, None, None
        if self._newest.get(tail.family) is tail:
            del self._newest[tail.family]

    def _retire(self, tail: Tail) -> None:
        """Release a file that was read to its end or is not listed. Its position is kept unless it is deleted."""
        deleted = tail.fd >= 0 and os.fstat(tail.fd).st_nlink == 0
        self._drop(tail)
        if not deleted and (tail.place.offset or (tail.size and tail.place.handle)):
            self._lose(tail)
        else:
            log_unread(tail.path, 0 if deleted else tail.size)
            self._forget([tail.key])

    def _truncated(self, tail: Tail) -> None:
        """The file was emptied in place: the next scan finds its present content as a new file."""
        self._drop(tail)
        self._lose(tail, truncated=True)
        self.scan_wanted = True

    def _lose(self, tail: Tail, *, truncated: bool = False) -> None:
        unread_bytes, written_ms = tail.size - tail.place.offset, tail.mtime_ns // 1_000_000
        self._lost.add(
            Lost(
                tail.key,
                tail.path,
                tail.family,
                tail.place,
                written_ms,
                truncated=truncated,
                id=tail.id,
                unread_bytes=unread_bytes,
            )
        )

    def _deleted(self, tail: Tail) -> None:
        """A closed file was deleted and its inode used again; a scan finds the file that has it now."""
        self._drop(tail)
        log_unread(tail.path, tail.size_closed - tail.place.offset)
        self._forget([tail.key])

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._committed.pop(key, None)
            self._committed_open.discard(key)
            self._forgotten.append(key)


def _leads_to(path: str, id_: FileId) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == id_
