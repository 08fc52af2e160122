"""The followed files that are open: never more than a limit, but for rotated ones whose last record goes on in the next
file; each with an inotify watch where available.

Those that were closed to make room are known by their paths: their directories are watched for writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from logfwd.sources.file.identity import open_same
from logfwd.sources.file.notify import Inotify
from logfwd.sources.file.plain import Plain
from logfwd.sources.file.tail import Deleted, Replaced, Tail


class OpenFiles:
    """Opens and closes the files of tails."""

    def __init__(self, limit: int, notifier: Inotify | None) -> None:
        self._limit, self._notifier = limit, notifier
        self._watched: dict[int, Tail] = {}
        self._closed: dict[str, Tail] = {}
        self.tails: set[Tail] = set()

    def open(self, tail: Tail, make_room: Callable[[], bool]) -> bool:
        """Open a file unless it is open; False if `make_room` cannot close another one.

        Raises Moved, Deleted, Replaced, OSError.
        """
        if tail.fd >= 0:
            return True
        while len(self.tails) >= self._limit and len(self.tails) >= self._limit + self._waiting():
            if not make_room():
                return False
        fd = open_same(tail.path, tail.id)
        try:
            if tail.place.is_of(fd) is False:
                raise Deleted
            if not tail.place.fits(fd):
                raise Replaced
        except BaseException:
            os.close(fd)
            raise
        tail.fd = fd
        tail.plain = None if tail.place.archive is None else Plain(fd)
        self.tails.add(tail)
        self._closed.pop(tail.path, None)
        if self._notifier is not None:
            with contextlib.suppress(OSError):
                tail.watch = self._notifier.watch_file(fd)
                self._watched[tail.watch] = tail
        return True

    def _waiting(self) -> int:
        """How many files may be open beyond the limit, so that those after them, which end their records, can be."""
        return min(sum(tail.awaits_heir for tail in self.tails), self._limit)

    def close(self, tail: Tail) -> None:
        if tail.fd < 0:
            return
        if tail.watch >= 0 and self._notifier is not None:
            self._notifier.remove(tail.watch)
            del self._watched[tail.watch]
        os.close(tail.fd)
        tail.size_closed = tail.size
        self.tails.remove(tail)
        tail.fd = tail.watch = -1
        tail.plain = None

    def set_aside(self, tail: Tail) -> None:
        """Close a file that is still followed."""
        status = os.fstat(tail.fd)
        is_read = tail.plain is None and status.st_size == tail.place.offset
        if is_read and tail.place.fits(tail.fd):  # so no scan opens it for nothing
            tail.size, tail.mtime_ns, tail.ctime_ns = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        self.close(tail)
        self._closed[tail.path] = tail
        self.watch_writes(tail.path)

    def watch_writes(self, path: str) -> None:
        """Be told of writes to a file that is not open."""
        if self._notifier is not None:
            with contextlib.suppress(OSError):
                self._notifier.watch_directory(os.path.dirname(path), writes=True)

    def close_all(self) -> None:
        for tail in list(self.tails):
            self.close(tail)

    def take_renames(self) -> list[tuple[str, str]]:
        """Paths before and after each rename in the watched directories since the last call."""
        renames = self._notifier.renames if self._notifier is not None else ()
        return [renames.popleft() for _ in range(len(renames))] if renames else []

    @property
    def renames(self) -> list[tuple[str, str]]:
        """What `take_renames` will return."""
        return list(self._notifier.renames) if self._notifier is not None else []

    def watched(self, watch: int) -> Tail | None:
        """The file to which the events with this watch number belong."""
        return self._watched.get(watch)

    def closed_at(self, path: str) -> Tail | None:
        """The closed file with this path."""
        return self._closed.get(path)

    @property
    def all_watched(self) -> bool:
        """False while a file is open that has no watch."""
        return len(self._watched) == len(self.tails)

    def watch_directories(self, directories: set[str], followed: Iterable[Tail]) -> None:
        """Watch directories for files that appear, disappear or are renamed, and for writes to closed files.

        Repeating this is cheap and harmless.
        """
        self._closed = {tail.path: tail for tail in followed if tail.fd < 0}
        if self._notifier is not None:
            of_closed = {os.path.dirname(path) for path in self._closed}
            for directory in directories | of_closed:
                with contextlib.suppress(OSError):
                    self._notifier.watch_directory(directory, writes=directory in of_closed)
