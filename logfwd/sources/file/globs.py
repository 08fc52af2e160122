"""Expands the globs of `paths`, as glob.glob does, but a directory that `**` reaches is looked into once.

So links in circles end, and a directory with many names costs no more than one. A directory that cannot be listed is
reported, where glob.glob silently finds nothing.
"""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterator

Note = Callable[[str, str], None]
"""Called with the path and the reason of what cannot be read."""

Follows = Callable[[str], bool]
"""Called with a link to a directory that `**` has reached: whether to look into it."""


def expand(pattern: str, note: Note, follows: Follows = lambda _: True) -> list[str]:
    """The paths that a pattern leads to; one without wildcards leads to itself, whether or not it exists."""
    if not glob.has_magic(pattern):
        return [pattern]
    parts = pattern.split("/")
    if "**" not in parts:
        return list(_plain(pattern, note))
    at = parts.index("**")
    rest = "/".join(parts[at + 1 :]) or "*"
    found: list[str] = []
    for root in expand("/".join(parts[:at]) or ("/" if pattern.startswith("/") else "."), note, follows):
        for directory in _tree(root, note, follows):
            found += expand(os.path.join(glob.escape(directory), rest), note, follows)
    return found


def _plain(pattern: str, note: Note) -> Iterator[str]:
    folder, name = os.path.split(pattern)
    folders = glob.glob(folder) if glob.has_magic(folder) else [folder]
    for each in folders:
        if glob.has_magic(name) and os.path.isdir(each or "."):
            try:
                os.scandir(each or ".").close()
            except OSError as error:
                note(each, f"directory: {error.strerror}")
        yield from glob.glob(os.path.join(glob.escape(each), name))


def _tree(root: str, note: Note, follows: Follows) -> Iterator[str]:
    """A directory and all those below it, each of them once; links are followed last, so that real names count."""
    seen: set[tuple[int, int]] = set()
    waiting, links = deque([root]), deque[str]()
    while waiting or links:
        directory = (waiting or links).popleft()
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.is_dir():
                        path, is_link = os.path.join(directory, entry.name), entry.is_symlink()
                        if not is_link or follows(path):
                            (links if is_link else waiting).append(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            note(directory, f"directory: {error.strerror}")
            continue
        yield directory


def remedy_for(pattern: str) -> str:
    """What to do about a pattern that leads to nothing: its characters may not mean what its author thought."""
    name = pattern.rpartition("/")[2]
    if "~" in pattern:
        return "write the home directory in full: ~ is not expanded"
    if "{" in pattern:
        return "write each alternative as a pattern of its own: {a,b} is not expanded"
    if "[" in name:
        return "write [[] for a bracket in a name: [1] stands for the character 1"
    return "check the name, unless the file is still to come: it is read as soon as it is there"
