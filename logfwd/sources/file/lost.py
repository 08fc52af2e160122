"""Positions whose file is not followed now: stored ones after a start, and those of released files.

Which file takes over such a position is decided in which.py. Files with its inode come first (claims.py), then those
with its content (alike.py). What becomes of it while there is no such file is in absent.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from logfwd.sources.file.copies import Emptied
from logfwd.sources.file.identity import Head
from logfwd.sources.file.released import Lost
from logfwd.sources.file.scan import Found


class LostPositions:
    """The lost positions of one source, by key."""

    def __init__(self) -> None:
        self._lost: dict[str, Lost] = {}
        self._by_head: dict[Head, dict[str, Lost]] = {}
        self._by_path: dict[str, Lost] = {}
        self.emptied = Emptied()
        self.generation = 0
        """Goes up with each position that is added: what fitted none before may fit one now."""

    def __iter__(self) -> Iterator[Lost]:
        return iter(self._lost.values())

    def __len__(self) -> int:
        return len(self._lost)

    def __contains__(self, lost: Lost) -> bool:
        return lost.key in self._lost

    def add(self, lost: Lost) -> None:
        self._lost[lost.key] = lost
        self._by_head.setdefault(lost.place.head, {})[lost.key] = lost
        self._by_path[lost.path] = lost
        if lost.truncated:
            self.emptied.add(lost)
        self.generation += 1

    def take(self, lost: Lost) -> None:
        """Remove a position that a file has taken over, or that is given up."""
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

    def with_head(self, head: Head) -> dict[str, Lost]:
        """The positions of files that began so, by key, in the order in which they were added."""
        return self._by_head.get(head, {})

    def with_path(self, path: str) -> Lost | None:
        """The latest position of a file that had this path."""
        return self._by_path.get(path)

    def could_be(self, file: Found) -> bool:
        """True if name, family or inode of a file are those of a lost position."""
        return any(lost.place.inode == file.id[1] or lost.has_family(file.path) for lost in self)

    def inodes(self) -> set[int]:
        return {lost.place.inode for lost in self}

    def families(self) -> set[str]:
        return {lost.family for lost in self}

    def paths(self) -> set[str]:
        return {lost.path for lost in self}
