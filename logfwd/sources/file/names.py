"""Rotated names: which configured name a rotated file had before, and which of several files is older.

A rotated name is a *whole* configured name followed by `.` or `-` and a number of one to three digits, a date (with a
time), or "old"; or it has a date (and time) before its last suffix: `app-2026-01-31.log`. Behind it, or
behind the configured name alone, stands the `.gz`, `.zst`, `.bz2` or `.xz` of a compressed file. A configured name is
never shortened: for `worker-1`, `worker-2` is not a rotation, while `worker-1.1` and `worker-1-20260131` are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

KNOWN_NAMES = 32_768
"""For so many names it is remembered what they may have been before: every scan asks again."""

_ENDING = re.compile(r"[.\-](?:\d[\dT:.\-_Z]*|old)$")

_DAY = r"(?:19|20)\d\d(?:[.\-_]?(?:0[1-9]|1[0-2])[.\-_]?(?:0[1-9]|[12]\d|3[01])|[.\-_](?:0[1-9]|1[0-2]))"
_SUFFIX = re.compile(rf"\d{{1,3}}|{_DAY}[\dT:.\-_]*Z?|1\d{{9}}|old")
"""An index; a day or month, perhaps with a time or an index; seconds since 1970 (logrotate's `%s`); "old"."""

_DATED = re.compile(
    r"[.\-]((?:19|20)\d\d[.\-_]?(?:0[1-9]|1[0-2])[.\-_]?(?:0[1-9]|[12]\d|3[01])[\dT:.\-_]*Z?)(?=\.[A-Za-z]\w*$)"
)
"""A whole date, perhaps with a time, before the last suffix."""

_INDEX = re.compile(r"[.\-](\d{1,3})$")

_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""What a compressed file's name ends in."""


@lru_cache(KNOWN_NAMES)
def bases(path: str) -> tuple[str, ...]:
    """Names that the file may have had before rotation renamed or compressed it, longest first."""
    return tuple(_bases(path))


def _bases(path: str) -> Iterator[str]:
    if path.endswith(_COMPRESSED):
        path = os.path.splitext(path)[0]
        yield path
    start = path.rfind("/") + 2
    if (dated := _DATED.search(path, start)) is not None:
        yield path[: dated.start()] + path[dated.end() :]
    if (found := _ENDING.search(path, start)) is None:
        return
    for at in range(len(path) - 2, found.start() - 1, -1):
        if path[at] in ".-" and _SUFFIX.fullmatch(path, at + 1):
            yield path[:at]


def family_by_stem(path: str, families: Collection[str]) -> str:
    """The family whose name, without its suffix, this name begins with (the longest one); else the path."""
    name = os.path.basename(path)
    stems = {os.path.splitext(os.path.basename(family))[0]: family for family in sorted(families)}
    fitting = [stem for stem in stems if stem and name.startswith(stem)]
    return stems[max(fitting, key=len)] if fitting else path


def matches(path: str, pattern: str) -> bool:
    """True if a glob pattern (`**` included) could lead to this path."""
    return _matches(path.split("/"), pattern.split("/"))


def _matches(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return _matches(names, patterns[1:]) or (bool(names) and _matches(names[1:], patterns))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def age_order(path: str, family: str, mtime_ns: int) -> tuple[bool, int, int]:
    """Sorts the files of a family oldest first: by time of last write, then by index; the unrotated name last."""
    index = _INDEX.search(os.path.splitext(path)[0] if path.endswith(_COMPRESSED) else path)
    return path == family, mtime_ns, -int(index[1]) if index else 0
