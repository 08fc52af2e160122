"""Lists files: those that the configured globs lead to, and rotated ones under other names."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatch
from functools import partial
from typing import NamedTuple

import structlog

from logfwd.sources.file.globs import expand, remedy_for
from logfwd.sources.file.handle import id_of
from logfwd.sources.file.identity import FileId
from logfwd.sources.file.links import Links
from logfwd.sources.file.names import age_order, bases, family_by_stem, matches
from logfwd.sources.file.report import Report
from logfwd.sources.settings import FileSource

log = structlog.get_logger("logfwd.sources.file")


class Found(NamedTuple):
    """A regular file as a scan found it. `configured` is False if no glob of `paths` leads to it.

    `family` is the configured name whose rotation gave the file its name; the path itself if none did. `rotated` is the
    pattern that makes a file that is not configured a rotated one; empty if none does.
    """

    path: str
    id: FileId
    size: int
    mtime_ns: int
    ctime_ns: int
    family: str
    configured: bool = True
    rotated: str = ""

    @property
    def age_order(self) -> tuple[bool, int, int]:
        return age_order(self.path, self.family, self.mtime_ns)


class Troubles:
    """Logs once for each file that it cannot be read, and once that it can be read again."""

    def __init__(self, report: Report | None = None) -> None:
        self._known: dict[str, str] = {}
        self._report = report or Report()

    def __bool__(self) -> bool:
        return bool(self._known)

    def note(self, path: str, reason: str) -> None:
        if self._known.get(path) != reason:
            self._known[path] = reason
            self._report.unreadable(path, reason)

    def known(self) -> dict[str, str]:
        """By path, as they are now."""
        return dict(self._known)

    def over(self, path: str) -> None:
        if self._known.pop(path, None) is not None:
            log.info("file readable again", path=path)

    def prune(self) -> None:
        """Forget the troubles of paths that no longer exist."""
        for path in [path for path in self._known if not os.path.lexists(path)]:
            del self._known[path]


Others = Callable[[], Collection[FileSource]]
"""The settings of the other streams' file sources, as they are at the moment."""


def leads_to(settings: FileSource, path: str) -> bool:
    """True if the globs of a stream could lead to this path."""
    return any(matches(path, pattern) for pattern in settings.paths) and not excludes(settings, path)


def excludes(settings: FileSource, path: str) -> bool:
    """True if an exclude pattern matches the path, or the file's name if the pattern has no slash."""
    name = os.path.basename(path) if settings.exclude else ""
    return any(fnmatch(path if "/" in pattern else name, pattern) for pattern in settings.exclude)


class Finder:
    """Finds files for one source."""

    def __init__(self, settings: FileSource, others: Others = tuple, troubles: Troubles | None = None) -> None:
        self._settings, self._others = settings, others
        self.troubles = Troubles() if troubles is None else troubles
        folders = {os.path.dirname(pattern) or "." for pattern in (*settings.paths, *settings.rotated)}
        self.directories = {folder for folder in folders if not glob.has_magic(folder)}
        self._is_plain = folders == self.directories
        self.roots = {_root(folder) for folder in folders}
        """Directories in which a new directory may match a glob."""
        self._renamed: dict[str, str] = {}  # since the last scan: the present name, and the configured one before
        self._unlisted: set[str] = set()
        """Directories that the last scan could not list."""
        self.empty: set[str] = set()
        """Patterns for which the last scan found nothing."""
        self._targets: dict[str, str] = {}  # of symbolic links, which lead there: configured names as well
        self._links = Links(settings.follow_links)

    def configured(self) -> dict[FileId, Found]:
        """The files that globs lead to, each of them once however many names it has."""
        found: dict[FileId, Found] = {}
        seen, empty, unlisted = set[str](), set[str](), self._unlisted
        self._unlisted = set()
        self._links.forget()
        for pattern in self._settings.paths:
            root = _root(os.path.dirname(pattern))
            paths = expand(pattern, self._not_listed, partial(self._is_followed, root))
            if not any(os.path.lexists(path) for path in paths):
                empty.add(pattern)
            if self._settings.added_fields:
                paths.sort()  # of several names of a file, the first one names it in every scan
            for path in paths:
                if path not in seen and not excludes(self._settings, path):
                    seen.add(path)
                    if (file := self._look_at(path, root, named=path == pattern)) is not None:
                        found.setdefault(file.id, file)
        for directory in unlisted - self._unlisted:
            self.troubles.over(directory)
        self.troubles.prune()
        for pattern in sorted(empty - self.empty):
            log.warning("no file found", pattern=pattern, remedy=remedy_for(pattern))
        self.empty = empty
        names = {file.path for file in found.values()}
        families = ((file, self._family(file.path, names)) for file in found.values())
        return {file.id: file if family == file.family else file._replace(family=family) for file, family in families}

    def _not_listed(self, directory: str, reason: str) -> None:
        self._unlisted.add(directory)
        self.troubles.note(directory, reason)

    def _family(self, path: str, names: Collection[str]) -> str:
        """The configured name that became this path: the longest one that exists, else the shortest possible one."""
        family = path
        for base in bases(path):
            if base in names or base in self._settings.paths:
                return base
            if self.is_configured(base):
                family = base
        return family

    def is_configured(self, path: str) -> bool:
        """True if a glob or a symbolic link leads to this name, whether or not a file has it now."""
        return path in self._targets or leads_to(self._settings, path)

    def is_aside(self, path: str) -> bool:
        """True if `rotated` says that files of this source are moved to this name, which is no configured one."""
        rotated = any(matches(path, pattern) for pattern in self._settings.rotated)
        return rotated and not self.is_configured(path) and not excludes(self._settings, path)

    def name_of(self, family: str) -> str:
        """The name that `paths` matches: that of the symbolic link, where only one leads to it."""
        return self._targets.get(family, family)

    def _is_followed(self, root: str, directory: str) -> bool:
        """True for a directory that no link leads to which is not followed; says so."""
        if refusal := self._links.refusal_of_directory(directory, root):
            self.troubles.note(directory, refusal)
        return not refusal

    def unrotated(self, path: str) -> Found | None:
        """A regular file under a configured name that is no rotated one; None for anything else."""
        pattern = "" if bases(path) else self.pattern_of(path)
        if not pattern:
            return None
        try:
            refusal, status = self._links.refusal(path, _root(os.path.dirname(pattern))), os.lstat(path)
        except OSError:
            return None
        return _found(path, status, path) if not refusal and stat.S_ISREG(status.st_mode) else None

    def _look_at(self, path: str, root: str, *, named: bool) -> Found | None:
        is_link = False
        try:
            status = os.lstat(path)
            if is_link := stat.S_ISLNK(status.st_mode):
                refusal, status = self._links.refusal(path, root), os.stat(path)
            else:
                refusal = self._links.refusal_of_directory(os.path.dirname(path) or ".", root)
        except FileNotFoundError as error:
            if is_link:
                self.troubles.note(path, f"symbolic link: {error.strerror}")
            return None
        except OSError as error:
            self.troubles.note(path, error.strerror or str(error))
            return None
        if refusal:
            self.troubles.note(path, refusal)
            return None
        if stat.S_ISREG(status.st_mode):
            if is_link:  # rotation happens next to the file itself
                self.troubles.over(path)
                name, path = path, os.path.realpath(path)
                if not leads_to(self._settings, path):
                    self._targets[path] = min(name, self._targets.get(path, name))
            return _found(path, status, path)
        if named or not stat.S_ISDIR(status.st_mode):
            self.troubles.note(path, "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
        return None

    @property
    def is_plain(self) -> bool:
        """True if every change shows in `directories`, and no file waits to become readable."""
        return self._is_plain and not self.troubles

    def stamps(self, directories: Collection[str]) -> dict[str, int]:
        """When each directory last changed; unreadable and missing ones are left out."""
        stamps = ((directory, _changed_ns(directory)) for directory in directories)
        return {directory: stamp for directory, stamp in stamps if stamp}

    def strays(
        self,
        directories: Collection[str],
        inodes: Collection[int],
        families: Collection[str],
        whole: Collection[str],
        known: Collection[str],
    ) -> Iterator[Found]:
        """Files that are not configured: with one of these inodes, a rotated name, or in a `whole` directory.

        `known`: paths that were listed as configured; in a directory of thousands, these are nearly all.
        Only configured names have rotated ones, so a name is never shortened to one that is not configured.
        """
        for directory in directories:
            if self._links.refusal_of_directory(directory, directory):
                continue
            try:
                entries = os.scandir(directory)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    if entry.path in known:
                        continue
                    family, pattern = self._rotated_from(entry.path)
                    if pattern or directory in whole or entry.inode() in inodes:
                        yield from _stray(entry, family, pattern)
        families = [each for each in families if self._settings.rotated and self.is_configured(each)]
        for pattern in self._settings.rotated:
            root = _root(os.path.dirname(pattern))
            for path in expand(pattern, self._not_listed, partial(self._is_followed, root)):
                if not self.is_configured(path) and not excludes(self._settings, path):
                    with contextlib.suppress(OSError):
                        status = os.stat(path, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            family = family_by_stem(path, families)
                            yield _found(path, status, family)._replace(configured=False, rotated=pattern)

    def _rotated_from(self, path: str) -> tuple[str, str]:
        """The configured name that became this one by rotation, and its pattern; the path and "" if none did.

        A name that another stream reads, but not the one that it would come from, is not a rotated one.
        """
        if path in self._renamed:
            return self._renamed[path], self.pattern_of(self._renamed[path])
        for base in bases(path):
            if (pattern := self.pattern_of(base)) and not excludes(self._settings, path):
                if any(leads_to(other, path) and not leads_to(other, base) for other in self._others()):
                    break
                return base, pattern
        return path, ""

    def note_renames(self, renames: Iterable[tuple[str, str]]) -> None:
        """Files that had configured names are ours under the names that they were given since the last scan."""
        self._renamed.clear()
        for before, path in renames:
            origin = self._renamed.pop(before, before)
            if self.pattern_of(origin) and not self.is_configured(path) and not excludes(self._settings, path):
                self._renamed[path] = origin

    def pattern_of(self, path: str) -> str:
        """The pattern of `paths` that leads to this name, perhaps by a link; "" if none does."""
        name = self._targets.get(path, path)
        if excludes(self._settings, name):
            return ""
        return next((pattern for pattern in self._settings.paths if matches(name, pattern)), "")


def _stray(entry: os.DirEntry[str], family: str, pattern: str) -> Iterator[Found]:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        yield _found(entry.path, status, family)._replace(configured=False, rotated=pattern)


def _found(path: str, status: os.stat_result, family: str) -> Found:
    return Found(path, id_of(status), status.st_size, status.st_mtime_ns, status.st_ctime_ns, family)


def _root(folder: str) -> str:
    """The part of a glob's directory that precedes the first wildcard."""
    while glob.has_magic(folder):
        folder = os.path.dirname(folder) or "."
    return folder


def _changed_ns(directory: str) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0
