"""Which of the listed files to follow, and from where: new ones, lost ones that are back, and copies.

At the stream's first scan ever, files with rotated names count as read; so do the configured ones with `start_at =
"end"`. That the scan was made, and for which patterns, is stored together with these positions under `SCAN_KEY`. From
then on a file is new if no position explains it, whatever its times say. If a pattern is added later, the rotated files
that it brings count as read, too.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Mapping
from math import inf

from logfwd.sources.file.archives import Archives
from logfwd.sources.file.claims import Claims
from logfwd.sources.file.families import line_up, unread_after
from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.held import Held
from logfwd.sources.file.identity import FileId, Moved, Place, place_at
from logfwd.sources.file.originals import Originals
from logfwd.sources.file.released import DOUBT, LIKE_GONE, Lost
from logfwd.sources.file.scan import Found
from logfwd.sources.file.scanned import SCAN_KEY, patterns_of, scan_of
from logfwd.sources.file.tail import Tail
from logfwd.sources.file.which import Verdict
from logfwd.sources.file.writers import has_writer
from logfwd.sources.position import Mark

COMPRESSED = "\0compressed"
"""Stands among the patterns that were scanned, once the compressed rotated files that were there count as read."""

CLOCK_TICK_MS = 20
"""The kernel sets file times from its last tick, so they are a little behind the clock."""


class Adoption:
    """Begins to follow the files of one source."""

    def __init__(self, files: FollowedFiles, positions: Mapping[str, Mark]) -> None:
        self._files, settings = files, files.settings
        self.held = Held(settings.rotated_wait_seconds, files.report)
        self.archives = Archives(files)
        self._originals = Originals(files)
        self._claims = Claims(
            files.lost, files.finder.troubles, files.report, files.inode_used_again, self._originals.were_read_beyond
        )
        self._patterns = (*settings.paths, *settings.rotated, COMPRESSED)
        self._known: Collection[str] = ()
        """Patterns for which a scan was made before; rotated files of others are old."""
        self._stored: Collection[str] = ()
        self._read_until_ms: dict[str, float] | None = None
        """After an upgrade, once: rotated files of these families are old if they were last written before."""
        self._dismissed: dict[FileId, tuple[int, int, int]] = {}
        """Files that are not ours, with size, time of last write, and the positions that they were compared with."""
        if SCAN_KEY in positions:
            self._known = self._stored = patterns_of(positions[SCAN_KEY])
        elif positions:
            self._known, self._read_until_ms = self._patterns, {}
        self._at_end = settings.start_at == "end" and not positions
        self._wall_ms = 0

    def note_upgraded(self, lost: Lost) -> None:
        """Note a position of a version that did not store which scans were made."""
        if self._read_until_ms is not None:
            for name in {lost.family, lost.path}:
                self._read_until_ms[name] = max(self._read_until_ms.get(name, -inf), lost.written_ms - CLOCK_TICK_MS)

    def adopt_all(self, found: Mapping[FileId, Found], present: Collection[str], now: float, wall_ms: int) -> None:
        """Follow new files, oldest first. If one was moved meanwhile, the rest has to wait for the next scan."""
        adopted: list[Tail] = []
        emptied = self._files.lost.emptied
        self._files.adoptions += 1
        self._files.left_out.clear()
        self._originals.begin_scan()
        self._wall_ms = wall_ms
        unknown, emptied.is_new = self._unknown(found), False
        try:
            claims = self._claims.by_inode(unknown, present)
            unknown = self.archives.sort_out(unknown, now)
            adopted += self.archives.adopt(self._counts_as_read, now)
            held = self.archives.held_families()
            unknown = [file for file in unknown if file.family not in held]
            if emptied.is_new:  # what this scan has listed may lack the copy
                self._files.scan_wanted = self._files.incomplete = True
                unknown.clear()
                claims.clear()
            emptied.choose(unknown, self.held)
            emptied.is_new = False
            self._originals.note_new(unknown)
            # copies that take over positions come first: the others are compared with them
            unknown.sort(key=lambda file: (not emptied.is_taken_by(file), file.age_order))
            others = [(file, None) for file in unknown]
            for file, lost in [*claims, *others]:
                if lost is None and emptied.is_new:  # found just now: what is older than this file is in its copy
                    self._files.scan_wanted = self._files.incomplete = True
                    break
                tail = self._adopt(file, now) if lost is None else self._resume(file, lost, now)
                if tail is not None:
                    adopted.append(tail)
                    self._originals.note(tail)
        except Moved:
            self._files.scan_wanted = self._files.incomplete = True
        line_up(self._files.by_age, adopted, found)
        for left_out in self._files.left_out:  # what comes after it would be read before it
            for tail in unread_after(self._files.by_age, left_out, found):
                self._files.found_anew(tail)
                self._files.stored.forget([tail.key])
        if set(self._stored) != set(self._patterns):
            self._first_scan_made(found)

    @property
    def is_settled(self) -> bool:
        """True if the last scan has left no question open that a new file could be the answer to."""
        is_scanned = set(self._stored) == set(self._patterns) and not self._files.incomplete
        return is_scanned and not self._files.lost.emptied and not self.archives.is_busy

    def adopt_new(self, files: list[Found], now: float, wall_ms: int) -> None:
        """Follow files that no name and no inode explains, between two scans. One that was moved waits for a scan."""
        adopted, self._wall_ms = list[Tail](), wall_ms
        for file in files:
            with contextlib.suppress(Moved):
                if (tail := self._adopt(file, now)) is not None:
                    adopted.append(tail)
                    self._originals.note(tail)
        line_up(self._files.by_age, adopted, {file.id: file for file in files})

    def _unknown(self, files: Mapping[FileId, Found]) -> list[Found]:
        """Files that are not followed."""
        self.held.keep(files)
        self._files.beginnings.keep(files)
        generation = self._files.lost.generation
        self._claims.rewritten &= files.keys()
        self._dismissed = {id_: each for id_, each in self._dismissed.items() if id_ in files}
        return [
            file
            for id_, file in files.items()
            if id_ not in self._files.tails and self._dismissed.get(id_) != (file.size, file.mtime_ns, generation)
        ]

    def _dismiss(self, file: Found) -> None:
        self._dismissed[file.id] = file.size, file.mtime_ns, self._files.lost.generation

    def _first_scan_made(self, found: Mapping[FileId, Found]) -> None:
        """Store which patterns were scanned, together with what counts as read."""
        known = self._files.lost.inodes()
        for file in found.values():
            is_old = self._at_end if file.configured else file.rotated and self._is_old(file)
            is_taken = file.id in self._files.tails or file.id[1] in known or file.id in self.archives
            if is_old and file.size and not is_taken:
                self._count_as_read(file, Place(file.id[1], file.size))  # it cannot be read now
        self._at_end, self._read_until_ms = False, None
        self._known = self._stored = self._patterns
        self._files.stored.announced[SCAN_KEY] = scan_of(self._patterns)

    def _count_as_read(self, file: Found, place: Place) -> None:
        written_ms = file.mtime_ns // 1_000_000
        lost = Lost(uuid.uuid4().hex, file.path, file.family, place, written_ms, seen=True, id=file.id)
        self._files.lost.add(lost)
        self._files.stored.offsets[lost.key] = place.offset
        self._files.stored.announced[lost.key] = lost.position()

    def _is_old(self, file: Found) -> bool:
        """True for a rotated file from before the first scan for its pattern."""
        if self._read_until_ms is not None:
            return file.mtime_ns / 1_000_000 < self._read_until_ms.get(file.family, inf)
        return file.rotated not in self._known

    def _counts_as_read(self, file: Found) -> bool:
        """True for a compressed file from before the first scan, or one that is too old."""
        if file.rotated and (self._is_old(file) or COMPRESSED not in self._known):
            return True
        return (file.configured and self._at_end) or self._is_too_old(file)

    def _resume(self, file: Found, lost: Lost, now: float) -> Tail | None:
        """Follow a file from its lost position on."""
        is_archive = lost.place.archive is not None
        moved = not file.configured or file.path != lost.path or is_archive
        tail = Tail(
            lost.key,
            file.path,
            file.family if file.configured else lost.family,
            file.id,
            lost.place,
            self._files.settings.encoding,
            gone=not file.configured or is_archive,
            active_at=now,
            rotated_at=now if moved else None,
            settled=lost.settled,
        )
        if not self._files.start(tail):
            return None
        self._files.lost.take(lost)
        if tail.place.offset and not tail.place.tail_bytes:  # its size was all that was known
            tail.place, tail.announce = self._files.end_of(tail), True
        return tail

    def _adopt(self, file: Found, now: float) -> Tail | None:
        """Follow an unknown file, unless it is an old file or a copy."""
        if not file.configured and not file.size and not self._files.lost.emptied.awaits_copy(file.family):
            return None
        tail = Tail(
            uuid.uuid4().hex,
            file.path,
            file.family,
            file.id,
            Place(file.id[1], head_start=self._files.settings.header_bytes),
            self._files.settings.encoding,
            gone=not file.configured,
            active_at=now,
            rotated_at=None if file.configured else now,
        )
        if not self._files.start(tail):
            return None
        try:
            if tail.size < file.size and tail.place.archive is None:  # a copy of it may be younger than the list
                raise Moved
            if not self._is_ours(file, tail, now):
                self._undo(tail)
                return None
            if self._at_end and tail.place.offset == 0:
                tail.place = self._files.end_of(tail)
                self._files.stored.announced[tail.key] = tail.position()
            elif not tail.place.offset and self._is_too_old(file):
                tail.place, tail.announce = self._files.end_of(tail), True
        except Moved:
            self._undo(tail)
            raise
        except OSError as error:
            self._files.trouble(tail, error)
            self._files.incomplete = True
            self._undo(tail)
            return None
        return tail

    def _is_too_old(self, file: Found) -> bool:
        """True for a new file that was last written longer than `ignore_older` ago."""
        limit = self._files.settings.ignore_older_seconds
        return bool(limit) and self._wall_ms - file.mtime_ns / 1e6 > limit * 1000

    def _undo(self, tail: Tail) -> None:
        """Stop following a file that has turned out not to be new."""
        self._files.drop(tail)
        self._files.stored.offsets.pop(tail.key, None)

    def _is_ours(self, file: Found, tail: Tail, now: float) -> bool:
        """True if a file that no inode explains is to be followed: a copy takes over a position, the rest is new."""
        original = self._originals.original_of(file, tail)
        if self._files.lost.emptied.is_new:  # found just now: the next scan chooses copies, and what comes before this
            raise Moved
        if original is not None:
            return self.held.has_waited(file, now, original)
        found = self._files.alike.by_content(file, tail.fd, held=file in self.held)
        if found is None:
            if is_new := self._is_finished(file, tail, now) and self._is_new(file, tail):
                doubted, kept = self._claims.doubted.get(file.id, 0), self._originals.kept_bytes(file, tail)
                self._files.report.read_again(file.path, max(doubted, kept), DOUBT if doubted else LIKE_GONE)
            return is_new
        lost, place, verdict = found
        if verdict is Verdict.WAIT:
            return self.held.has_waited(file, now, lost.path)
        self._files.lost.take(lost)
        if verdict is Verdict.MOVED:
            self._files.report.recognised(file.path, lost.path, place.offset)
            further = self._originals.kept_bytes(file, tail) - place.offset
            self._files.report.read_again(file.path, max(further, 0), LIKE_GONE)
        elif verdict is Verdict.EDITED:
            self._files.report.edited(file.path, place.offset)
        if not file.configured and file.path == file.family:
            tail.family = lost.family  # whatever a copy is called, what is new in its original comes after it
        del self._files.stored.offsets[tail.key]
        tail.key, tail.place, tail.announce = lost.key, place, True
        self._files.records.prepare(tail)
        return True

    def _is_finished(self, file: Found, tail: Tail, now: float) -> bool:
        """False for a rotated file whose content was replaced in place, as long as somebody is known to be at it."""
        if file.id not in self._claims.rewritten or not has_writer(tail.fd):
            return True
        return self.held.is_unchanged(file, now)

    def _is_new(self, file: Found, tail: Tail) -> bool:
        """True if a file that no position explains is to be read from its start."""
        if file.configured:
            return True
        if not file.rotated:
            self._dismiss(file)
        elif self._is_old(file):
            self._count_as_read(file, place_at(tail.fd, file.size, self._files.settings.header_bytes))
        else:
            return file.size > 0
        return False
