"""inotify(7) through ctypes: which followed files were written to, and whether a directory changed.

An open file has a watch of its own, whatever its path becomes. Files that are followed and closed for want of
descriptors are noticed by the watch of their directory, which then reports writes to any file in it.

Events save polling, and tell what a file that nobody had seen was called before it was renamed: the two events of a
rename have one cookie. A missed or merged event costs time, and such a file if its new name is not a rotated one.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import deque
from typing import NamedTuple

IN_MODIFY = 0x2
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
DIRECTORY_EVENTS = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
READ_BYTES = 64 * 1024
RENAMES = 1024
"""How many renames are remembered until the next scan."""

_EVENT = struct.Struct("iIII")


class Events(NamedTuple):
    """What happened: the watches of open files that were written to, paths of files that were made or written to, and
    whether a scan is needed."""

    watches: set[int]
    paths: set[str]
    scan: bool


NOTHING = Events(set(), set(), scan=False)


class Inotify:
    """One inotify instance. One thread adds watches while another reads events; the kernel allows that."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._call(self._libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        self._directories: dict[int, str] = {}
        self._moving: deque[tuple[int, str]] = deque(maxlen=RENAMES)  # cookies of renames, and the names before
        self.renames: deque[tuple[str, str]] = deque(maxlen=RENAMES)
        """Paths before and after each rename since they were last taken away, in order."""

    @staticmethod
    def _call(function: ctypes._NamedFuncPointer, *arguments: int | bytes) -> int:
        result = int(function(*arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def watch_file(self, fd: int) -> int:
        """Watch an open file whatever its path becomes; the watch number that its events carry."""
        return self._call(self._libc.inotify_add_watch, self.fd, b"/proc/self/fd/%d" % fd, IN_MODIFY)

    def watch_directory(self, path: str, *, writes: bool = False) -> int:
        """Watch a directory for names that come, go or change; for `writes` to its files, too."""
        mask = DIRECTORY_EVENTS | IN_ONLYDIR | (IN_MODIFY if writes else 0)
        watch = self._call(self._libc.inotify_add_watch, self.fd, os.fsencode(path), mask)
        self._directories[watch] = path
        return watch

    def remove(self, watch: int) -> None:
        """Remove a watch; the kernel may have removed it already."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def drain(self) -> Events:
        """What happened since the last call."""
        watches, paths, scan = set[int](), set[str](), False
        while data := self._read():
            position = 0
            while position < len(data):
                watch, mask, cookie, name_bytes = _EVENT.unpack_from(data, position)
                position += _EVENT.size + name_bytes
                directory = self._directories.get(watch) if name_bytes else None
                is_file = mask & (IN_MODIFY | IN_CREATE) and not mask & IN_ISDIR
                if directory is not None and (cookie or is_file):
                    name = os.fsdecode(data[position - name_bytes : position].rstrip(b"\0"))
                    path = os.path.join(directory, name)
                    if is_file:
                        paths.add(path)
                    else:
                        self._note_rename(mask, cookie, path)
                elif mask & IN_MODIFY:
                    watches.add(watch)
                elif mask & IN_IGNORED:
                    self._directories.pop(watch, None)
                scan = scan or bool(mask & (DIRECTORY_EVENTS | IN_Q_OVERFLOW))
        return Events(watches, paths, scan)

    def _note_rename(self, mask: int, cookie: int, path: str) -> None:
        if mask & IN_MOVED_FROM:
            self._moving.append((cookie, path))
        for known, before in self._moving if mask & IN_MOVED_TO else ():
            if known == cookie:
                self.renames.append((before, path))

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.fd)
