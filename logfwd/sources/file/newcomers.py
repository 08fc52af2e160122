"""New files between two scans: those that cannot be anything but new are followed at once.

A scan decides about all files together. With thousands of files it costs tenths of a second, so scans are rationed. In
between, inotify names files that were made or written to. Such a file is followed without a scan if nothing else could
explain it: its name is configured and is no rotated one, no file of this name, family or inode is known, none of this
name was renamed since the last scan, no rotated one of it has appeared since, and it is neither empty nor compressed
nor a link. Whether its content makes it a copy is looked at as in a scan. Everything else waits for the scan, which is
asked for in any case.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from logfwd.sources.file.adopt import Adoption
from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.identity import Moved, open_same
from logfwd.sources.file.names import bases
from logfwd.sources.file.plain import SIGNATURE_BYTES, compression_of
from logfwd.sources.file.scan import Found


class Newcomers:
    """Begins to follow new files of one source between two scans."""

    def __init__(self, files: FollowedFiles, adoption: Adoption) -> None:
        self._files, self._adoption = files, adoption
        self._rotated: set[str] = set()
        """Names that rotated files may have had which appeared since the last scan: what these have is older."""
        self._any_aside = False
        """A file appeared where `rotated` says that files are moved to: of which one, a scan knows."""

    def begin_scan(self) -> None:
        """Forget which rotated files appeared: this scan finds them."""
        self._rotated.clear()
        self._any_aside = False

    def follow(self, paths: Collection[str], now: float, wall_ms: int) -> None:
        """Follow those of the files at these paths that are certainly new."""
        if not paths:
            return
        renames = self._files.opened.renames
        appeared = {*paths, *(path for _, path in renames)}
        self._rotated.update(base for path in appeared for base in bases(path))
        self._any_aside = self._any_aside or any(map(self._files.finder.is_aside, appeared))
        if self._any_aside or not self._adoption.is_settled:
            return
        older = self._rotated | {path for path, _ in renames}
        unknown = [path for path in paths if path not in self._files.by_age and path not in older]
        new = [file for file in map(self._look_at, unknown) if file is not None and self._is_new(file)]
        if new:
            self._adoption.adopt_new(new, now, wall_ms)

    def _look_at(self, path: str) -> Found | None:
        file = self._files.finder.unrotated(path)
        if file is not None and not file.size:
            self._files.opened.watch_writes(path)
            file = self._files.finder.unrotated(path)  # it may have been written to before it was watched
        return file

    def _is_new(self, file: Found) -> bool:
        if not file.size or file.id in self._files.tails or self._files.lost.could_be(file):
            return False
        try:
            fd = open_same(file.path, file.id)
        except (Moved, OSError):
            return False
        try:
            return not compression_of(os.pread(fd, SIGNATURE_BYTES, 0))
        except OSError:
            return False
        finally:
            os.close(fd)
