"""Copies next to an original that is still whole: they wait, because the original may be truncated at any moment.

If it is truncated (copytruncate), the copy takes over its position. If it is not, a copy that `paths` matches is read
as a file of its own: its content alone does not make it a known one.

A rotated file whose content was replaced in place waits, too: it may be a copy that is being written, or be overwritten
before it is deleted (shred).
"""

from __future__ import annotations

from collections.abc import Container
from math import inf

from logfwd.sources.file.identity import FileId
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Found


class Held:
    """The copies that wait, each with its size and time of last write, and since when these are what they are."""

    def __init__(self, wait_seconds: float, report: Report | None = None) -> None:
        self._wait_seconds, self._report = wait_seconds, report or Report()
        self._since: dict[FileId, tuple[int, int, float]] = {}

    def __contains__(self, copy: Found) -> bool:
        """True for a copy that waits, as it is; another file may have got its inode since."""
        return self._since.get(copy.id, ())[:2] == (copy.size, copy.mtime_ns)

    def keep(self, ids: Container[FileId]) -> None:
        """Forget copies that are not among these files."""
        self._since = {id_: since for id_, since in self._since.items() if id_ in ids}

    def deadline(self) -> float:
        """When the first of the copies has waited long enough."""
        return min((since + self._wait_seconds for _, _, since in self._since.values()), default=inf)

    def has_waited(self, copy: Found, now: float, original: str = "") -> bool:
        """True for a copy that has not changed for the time to wait. Never for an empty or an unconfigured one."""
        if not (copy.configured and copy.size):
            self._since[copy.id] = copy.size, copy.mtime_ns, inf
            return False
        if not self.is_unchanged(copy, now):
            return False
        reason = f"it begins like {original or copy.family}, which was not truncated within rotated_wait"
        self._report.read_again(copy.path, copy.size, reason)
        return True

    def is_unchanged(self, file: Found, now: float) -> bool:
        """True for a file that has been the same for the time to wait."""
        size, mtime_ns, since = self._since.get(file.id, (-1, -1, inf))
        if (size, mtime_ns) != (file.size, file.mtime_ns) or since == inf:
            since = now
        self._since[file.id] = file.size, file.mtime_ns, since
        if now - since < self._wait_seconds:
            return False
        del self._since[file.id]
        return True
