"""Which of the listed files to follow, and from where: new ones, lost ones that are back, and copies."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from math import inf

from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.held import Held
from logfwd.sources.file.identity import FileId, Moved, Place, begins_alike
from logfwd.sources.file.lost import Lost
from logfwd.sources.file.names import age_order
from logfwd.sources.file.scan import Found
from logfwd.sources.file.tail import Deleted, Replaced, Tail


class Adoption:
    """Begins to follow the files of one source."""

    def __init__(self, files: FollowedFiles, *, at_end: bool) -> None:
        self._files, self.at_end = files, at_end
        self.held = Held(files.settings.rotated_wait_seconds)
        self.family_since_ms: dict[str, float] = {}
        """Unseen rotated files of these families are ours if they were written since then …"""
        self.recent_ms = -inf
        """… and since then, because earlier scans would have seen older ones."""

    def adopt_all(self, unknown: list[Found], now: float) -> None:
        """Follow new files, oldest first. If one was moved meanwhile, the rest has to wait for the next scan."""
        adopted: list[Tail] = []
        try:
            claims = self._files.lost.claims(unknown, now)
            others = [(file, None) for file in sorted(unknown, key=lambda file: file.age_order)]
            for file, lost in [*claims, *others]:
                tail = self._adopt(file, now) if lost is None else self._resume(file, lost, now)
                if tail is not None:
                    adopted.append(tail)
        except Moved:
            self._files.scan_wanted = self._files.incomplete = True
        self._link(adopted)

    def unknown(self, files: Mapping[FileId, Found]) -> list[Found]:
        """Files that are not followed."""
        self._files.compressed &= {(file.id, file.mtime_ns) for file in files.values()}
        self.held.keep(files)
        return [
            file
            for id_, file in files.items()
            if id_ not in self._files.tails and (id_, file.mtime_ns) not in self._files.compressed
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
            self._files.settings.encoding,
            gone=not file.configured,
            active_at=now,
            rotated_at=now if moved else None,
        )
        if not self._files.start(tail):
            return None
        self._files.lost.take(lost)
        return tail

    def _adopt(self, file: Found, now: float) -> Tail | None:
        """Follow an unknown file, unless it is an old file or a copy."""
        since_ms = max(self.family_since_ms.get(file.family, inf), self.recent_ms)
        old = file.mtime_ns / 1_000_000 < since_ms
        if not file.configured and (not file.size or old) and not self._files.lost.awaits_copy(file.family):
            return None
        tail = Tail(
            uuid.uuid4().hex,
            file.path,
            file.family,
            file.id,
            Place(file.id[1]),
            self._files.settings.encoding,
            gone=not file.configured,
            active_at=now,
            rotated_at=None if file.configured else now,
        )
        if not self._files.start(tail):
            return None
        try:
            if file.path != file.family and not self._is_from_rotation(file, tail, now, old=old):
                self._undo(tail)
                return None
            if self.at_end:
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

    def _undo(self, tail: Tail) -> None:
        """Stop following a file that has turned out not to be new."""
        self._files.drop(tail)
        self._files.committed.pop(tail.key, None)

    def _is_from_rotation(self, file: Found, tail: Tail, now: float, *, old: bool) -> bool:
        """True if a file with a rotated name has to be followed. A copy takes over its original's position."""
        if self._is_copy_of_followed(tail):
            return self.held.has_waited(file, now)
        if (copied := self._files.lost.copied(file, tail.fd, held=file.id in self.held)) is None:
            return file.configured or (file.size > 0 and not old)
        lost, place = copied
        if not file.configured and file.size <= place.offset and not place.state:
            return False
        self._files.lost.take(lost)
        del self._files.committed[tail.key]
        tail.key, tail.place, tail.announce = lost.key, place, True
        tail.lines = self._files.lines_of(tail)
        return True

    def _is_copy_of_followed(self, tail: Tail) -> bool:
        """True if the file may be a copy, perhaps unfinished, of a followed original that is still whole."""
        for original in list(self._files.tails.values()):
            if original.path != tail.family or original.rotated_at is not None:
                continue
            try:
                if not self._files.open(original, keep=tail) or begins_alike(tail.fd, original.fd):
                    return True
                if not original.place.fits(original.fd):
                    self._files.truncated(original)
            except Replaced:
                self._files.truncated(original)
            except Deleted:
                self._files.deleted(original)
                self._files.scan_wanted = True
        return False

    def _link(self, adopted: list[Tail]) -> None:
        """Make each new file wait for the one before it in its family."""
        for tail in sorted(adopted, key=lambda tail: age_order(tail.path, tail.family, tail.mtime_ns)):
            tail.after = tail.predecessor = self._files.newest.get(tail.family)
            self._files.newest[tail.family] = tail
