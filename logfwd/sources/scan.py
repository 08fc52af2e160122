"""Which files there are: those that the configured globs lead to, and their rotated siblings under other names."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from typing import NamedTuple

import structlog

from logfwd.sources.identity import FileId
from logfwd.sources.names import age_order, bases, matches
from logfwd.sources.settings import FileSource

log = structlog.get_logger("logfwd.sources.file")


class Found(NamedTuple):
    """A regular file as a scan met it. `configured` is False for one that no glob leads to.

    `family` is the configured name whose rotation gave the file its name; the path itself if none did.
    """

    path: str
    id: FileId
    size: int
    mtime_ns: int
    ctime_ns: int
    family: str
    configured: bool = True

    @property
    def age_order(self) -> tuple[bool, int, int]:
        return age_order(self.path, self.family, self.mtime_ns)


class Troubles:
    """Says once for each file that it cannot be read, and once that it can be again."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def note(self, path: str, reason: str) -> None:
        if self._known.get(path) != reason:
            self._known[path] = reason
            log.warning("cannot read file; will try again", path=path, reason=reason)

    def over(self, path: str) -> None:
        if self._known.pop(path, None) is not None:
            log.info("can read file again", path=path)

    def prune(self) -> None:
        """Forget troubles of paths that are no more."""
        for path in [path for path in self._known if not os.path.lexists(path)]:
            del self._known[path]


Others = Callable[[], Collection[FileSource]]
"""What the other streams read, as it is now."""


def leads_to(settings: FileSource, path: str) -> bool:
    """True if the globs of a stream could lead to this path."""
    return any(matches(path, pattern) for pattern in settings.paths) and not excludes(settings, path)


def excludes(settings: FileSource, path: str) -> bool:
    """True if a pattern names the path, or, where it has no slash, the file's name."""
    name = os.path.basename(path)
    return any(fnmatch(path if "/" in pattern else name, pattern) for pattern in settings.exclude)


class Finder:
    """Finds files for one source."""

    def __init__(self, settings: FileSource, others: Others = tuple) -> None:
        self._settings, self._others = settings, others
        self.troubles = Troubles()
        folders = {os.path.dirname(pattern) or "." for pattern in settings.paths}
        self.directories = {folder for folder in folders if not glob.has_magic(folder)}
        self._is_plain = folders == self.directories
        self.roots = {_root(folder) for folder in folders}
        """Where directories may appear that a glob leads into."""
        self._targets: set[str] = set()  # paths that symbolic links led to: configured names like their links'

    def configured(self) -> dict[FileId, Found]:
        """The files that globs lead to, once each however many names they have."""
        found: dict[FileId, Found] = {}
        seen: set[str] = set()
        for pattern in self._settings.paths:
            for path in glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]:
                if path not in seen and not excludes(self._settings, path):
                    seen.add(path)
                    if (file := self._look_at(path, named=path == pattern)) is not None:
                        found.setdefault(file.id, file)
        self.troubles.prune()
        names = {file.path for file in found.values()}
        return {id_: file._replace(family=self._family(file.path, names)) for id_, file in found.items()}

    def _family(self, path: str, names: Collection[str]) -> str:
        """The configured name that became this path: the longest that is there, or else the shortest there may be."""
        family = path
        for base in bases(path):
            if base in names or base in self._settings.paths:
                return base
            if self.is_configured(base):
                family = base
        return family

    def is_configured(self, path: str) -> bool:
        """True for a name, of a file or of none, that a glob or a symbolic link leads to."""
        return path in self._targets or leads_to(self._settings, path)

    def _look_at(self, path: str, *, named: bool) -> Found | None:
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            if os.path.islink(path):
                self.troubles.note(path, f"symbolic link: {error.strerror}")
            return None
        except OSError as error:
            self.troubles.note(path, error.strerror or str(error))
            return None
        if stat.S_ISREG(status.st_mode):
            if os.path.islink(path):  # rotation happens beside the file itself
                self.troubles.over(path)
                path = os.path.realpath(path)
                self._targets.add(path)
            return _found(path, status, path)
        if named or not stat.S_ISDIR(status.st_mode):
            self.troubles.note(path, "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
        return None

    @property
    def is_plain(self) -> bool:
        """True if whatever changes shows in `directories`, and no file waits to become readable."""
        return self._is_plain and not self.troubles

    def stamps(self, directories: Collection[str]) -> dict[str, int]:
        """When each directory last changed; without those that cannot be looked at."""
        stamps = ((directory, _changed_ns(directory)) for directory in directories)
        return {directory: stamp for directory, stamp in stamps if stamp}

    def strays(
        self, directories: Collection[str], inodes: Collection[int], families: Collection[str]
    ) -> Iterator[Found]:
        """Files in these directories with one of these inodes, or with a rotated name of one of these families.

        Only families that are configured names count, so that a name is never shortened to one that is not.
        """
        for directory in directories:
            try:
                entries = os.scandir(directory)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    family = next((base for base in bases(entry.path) if base in families), entry.path)
                    if entry.inode() in inodes or (family != entry.path and self._is_rotated(entry.path, family)):
                        yield from _stray(entry, family)

    def _is_rotated(self, path: str, family: str) -> bool:
        """False also for a name that another stream reads by itself: that is, without reading this family."""
        if not self.is_configured(family) or excludes(self._settings, path):
            return False
        return not any(leads_to(other, path) and not leads_to(other, family) for other in self._others())


def _stray(entry: os.DirEntry[str], family: str) -> Iterator[Found]:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        yield _found(entry.path, status, family)._replace(configured=False)


def _found(path: str, status: os.stat_result, family: str) -> Found:
    id_ = status.st_dev, status.st_ino
    return Found(path, id_, status.st_size, status.st_mtime_ns, status.st_ctime_ns, family)


def _root(folder: str) -> str:
    """The part of a glob's directory before the first wildcard."""
    while glob.has_magic(folder):
        folder = os.path.dirname(folder) or "."
    return folder


def _changed_ns(directory: str) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0
