"""Positions whose file is not followed now: stored ones after a start, and those of released files.

Which file takes over such a position is decided in which.py. Files with its inode come first (claims.py), then those
with its content (alike.py). What becomes of it while there is no such file is in absent.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from logfwd.sources.file.copies import Emptied
from logfwd.sources.file.identity import Head
from logfwd.sources.file.released import Lost
from logfwd.sources.file.scan import Found

K = TypeVar("K")


class LostPositions:
    """The lost positions of one source, by key."""

    def __init__(self) -> None:
        self._lost: dict[str, Lost] = {}
        self._by_head: dict[Head, dict[str, Lost]] = {}
        self._by_path: dict[str, Lost] = {}
        self._by_inode: dict[int, dict[str, Lost]] = {}
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
        self._by_inode.setdefault(lost.place.inode, {})[lost.key] = lost
        if lost.truncated:
            self.emptied.add(lost)
        self.generation += 1

    def take(self, lost: Lost) -> None:
        """Remove a position that a file has taken over, or that is given up."""
        del self._lost[lost.key]
        self.emptied.discard(lost)
        if self._by_path.get(lost.path) is lost:
            del self._by_path[lost.path]
        _remove(lost, self._by_head, lost.place.head)
        _remove(lost, self._by_inode, lost.place.inode)

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

    def with_inode(self, inode: int) -> list[Lost]:
        """The positions of files that had this inode."""
        return list(self._by_inode.get(inode, {}).values())

    def could_be(self, file: Found) -> bool:
        """True if name, family or inode of a file are those of a lost position."""
        return file.id[1] in self._by_inode or any(lost.has_family(file.path) for lost in self)

    def inodes(self) -> set[int]:
        return set(self._by_inode)

    def families(self) -> set[str]:
        return {lost.family for lost in self}

    def paths(self) -> set[str]:
        return {lost.path for lost in self}


def _remove(lost: Lost, index: dict[K, dict[str, Lost]], key: K) -> None:
    del index[key][lost.key]
    if not index[key]:
        del index[key]
