"""Whether a file is a copy of the beginning of another one, which is still whole; perhaps one that was edited since.

First and last 1 KiB show that quickly. Where the last one differs, the original may have been edited in place after it
was copied. Then every byte is compared, so that nothing is taken for a copy that goes on otherwise than its original:
they may differ in one line alone. That line of the copy is not read, which is said.
"""

from __future__ import annotations

import os
from collections.abc import Container

from logfwd.sources.file.identity import FileId, Place, begins_alike
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Found
from logfwd.sources.file.which import LEAST_BYTES

_STEP_BYTES = 64 * 1024


class Beginnings:
    """Compares copies with their originals, and remembers those that differ."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._edited: dict[FileId, tuple[int, int, set[int]]] = {}
        """Copies of files that were edited since: size, time of last write, and the inodes of their originals."""

    def keep(self, ids: Container[FileId]) -> None:
        """Forget copies that are not among these files."""
        self._edited = {id_: each for id_, each in self._edited.items() if id_ in ids}

    def is_beginning(self, copy: Found, fd: int, original: Place, other: int) -> bool:
        """True if an open file is a copy of the beginning of another one, which is that of this position."""
        return begins_alike(fd, other) or self._was_edited_since(copy, fd, original, other)

    def _was_edited_since(self, copy: Found, fd: int, original: Place, other: int) -> bool:
        if original.archive is not None or not original.fits(other) or os.fstat(other).st_size < copy.size:
            return False
        size, mtime_ns, inodes = self._edited.get(copy.id, (-1, -1, set[int]()))
        is_known = (size, mtime_ns) == (copy.size, copy.mtime_ns)
        if is_known and original.inode in inodes:
            return True
        if not original.has_in_common(fd) or not differs_in_one_place(fd, other):
            return False
        if not is_known:
            self._report.edited(copy.path, copy.size)
        self._edited[copy.id] = copy.size, copy.mtime_ns, (inodes if is_known else set()) | {original.inode}
        return True


def differs_in_one_place(fd: int, other: int) -> bool:
    """True if a file is the beginning of another but for fewer than 64 bytes within one line; all of it is compared."""
    first, end, size = 0, 0, os.fstat(fd).st_size
    for at in range(0, size, _STEP_BYTES):
        ours = os.pread(fd, _STEP_BYTES, at)
        theirs = os.pread(other, len(ours), at)
        if len(ours) != len(theirs):
            return False
        if ours != theirs:
            places = [place for place, (one, two) in enumerate(zip(ours, theirs, strict=True), at) if one != two]
            first, end = first if end else places[0], places[-1] + 1
            if end - first >= LEAST_BYTES:
                return False
    return all(b"\n" not in os.pread(each, end - first, first) for each in (fd, other))
