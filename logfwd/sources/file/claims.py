"""Files of lost positions by inode, handle and content.

Without handles, a file with inode and content of one that went away may be a new one: then it is read from its start,
unless it is known by its content, and the possible repeats are reported. If it has more content of another file, that
is followed or was emptied since, it is the copy of that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from logfwd.sources.file.identity import FileId, open_same
from logfwd.sources.file.lost import LostPositions
from logfwd.sources.file.released import REWRITTEN, Lost, is_doubtful
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Found, Troubles
from logfwd.sources.file.which import Verdict, with_same_inode


class Claims:
    """Finds the files of one source's lost positions. `on_deleted` takes those whose file is found to be deleted;
    `is_copy` tells whether a file is a copy of a followed one of which more than so much was read."""

    def __init__(
        self,
        lost: LostPositions,
        troubles: Troubles,
        report: Report,
        on_deleted: Callable[[Lost], None],
        is_copy: Callable[[Found, int, int], bool],
    ) -> None:
        self._lost, self._troubles, self._report = lost, troubles, report
        self._on_deleted, self._is_copy = on_deleted, is_copy
        self.rewritten: set[FileId] = set()
        """Rotated files of which nothing more was expected, and whose content was replaced in place."""
        self.doubted: dict[FileId, int] = {}
        """Files that this scan has found to be doubtful, with the bytes that they repeat if they are read as new."""

    def by_inode(self, unknown: list[Found], present: Collection[str]) -> list[tuple[Found, Lost]]:
        """Files of lost positions by inode, handle and content, oldest first. `present`: directories that were listed.

        Removes from `unknown` every file that must not be taken for a new one: these, files read to their end, and
        files that cannot be read now. Raises Moved.
        """
        self.doubted.clear()
        by_inode: dict[int, list[Lost]] = {}
        for lost in self._lost:
            lost.seen = False
            by_inode.setdefault(lost.place.inode, []).append(lost)
        inodes = {file.id[1] for file in unknown}
        for lost in self._lost:
            lost.missed = lost.missed or (lost.place.inode not in inodes and lost.directory in present)
        claims: list[tuple[Found, Lost]] = []
        for file in [file for file in unknown if file.id[1] in by_inode]:
            candidates = by_inode[file.id[1]]
            if (fitting := self._compare(file, candidates)) is None:
                unknown.remove(file)
                continue
            candidates[:] = [lost for lost in candidates if lost in self._lost]
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
                self._lost.emptied.add(lost)
            if its_own and file.path != file.family and lost.stored_settled:
                self.rewritten.add(file.id)
            if its_own and not lost.judged:
                lost.settled, lost.judged = False, True
                self._report.read_again(file.path, lost.place.kept_bytes(fd, same=True), REWRITTEN)
            return False
        doubtful = evidence.same_handle is None and (
            is_doubtful(file, lost.path, lost.family, lost.written_ms, missed=lost.missed)
            or self._lost.emptied.were_read_beyond(file, fd, lost.place.offset)
            or (evidence.content_fits and self._is_copy(file, fd, lost.place.offset))
        )
        if verdict is Verdict.ANOTHER or doubtful:
            if doubtful and evidence.content_fits:
                self.doubted[file.id] = lost.place.offset
            if lost.id == file.id and not lost.was_open:  # its inode was used again, so its file is deleted
                self._lost.take(lost)
                self._on_deleted(lost)
            return False
        if verdict is Verdict.EDITED:
            self._report.edited(file.path, lost.place.offset)
            self._lost.take(lost)
            lost.place = lost.place.edited(fd)
            self._lost.add(lost)
        lost.seen, lost.missed, lost.seen_at = True, False, file.path
        return True
