"""What a source of files would not read as things are: for `logfwd validate`, which reads no record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from logfwd.sources.file.globs import remedy_for
from logfwd.sources.file.identity import Moved, open_same
from logfwd.sources.file.plain import READABLE, SIGNATURE_BYTES, compression_of
from logfwd.sources.file.scan import Finder, Found, Troubles
from logfwd.sources.settings import FileSource


class _Collected(Troubles):
    """Troubles that are not logged."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def note(self, path: str, reason: str) -> None:
        self.reasons[path] = reason


def unread(source: object) -> Iterator[str]:
    """Why patterns and files of a source are not read, if it is one of files: a sentence for each."""
    if not isinstance(source, FileSource):
        return
    troubles = _Collected()
    finder = Finder(source, troubles=troubles)
    finder.empty = set(source.paths)  # not logged, either
    for file in finder.configured().values():
        try:
            if reason := _compression(file, source):
                troubles.note(file.path, reason)
        except OSError as error:
            troubles.note(file.path, error.strerror or str(error))
    for pattern in source.paths:
        if pattern in finder.empty:
            yield f"no file found for {pattern}: {remedy_for(pattern)}"
    for path, reason in sorted(troubles.reasons.items()):
        yield f"{path!r} is not read: {reason}"


def read_twice(sources: Mapping[str, object]) -> Iterator[str]:
    """Which streams read the same files, by the name of each stream: a sentence for each two."""
    readers: dict[object, str] = {}
    both: dict[tuple[str, str], list[str]] = {}
    for name, source in sources.items():
        if not isinstance(source, FileSource):
            continue
        finder = Finder(source, troubles=_Collected())
        finder.empty = set(source.paths)  # not logged
        for file in finder.configured().values():
            if (other := readers.setdefault(file.id, name)) != name:
                both.setdefault((other, name), []).append(file.path)
    for (one, other), paths in both.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield f"{one} and {other} read the same file, so its records are sent twice: {min(paths)}{more}"


def _compression(file: Found, source: FileSource) -> str:
    try:
        fd = open_same(file.path, file.id)
    except Moved:
        return ""
    try:
        name = compression_of(os.pread(fd, SIGNATURE_BYTES, 0))
    finally:
        os.close(fd)
    if not name or (name in READABLE and source.compressed == "read"):
        return ""
    if name not in READABLE:
        return f"it is a file of {name}"
    return f'it is a file of {name}; source.compressed = "read" reads it, else only what is missing of a file is read'
