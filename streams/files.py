"""Files that survive a power cut: names made durable, small files replaced whole or not at all.

A file's data and the name that leads to it are made durable apart (fsync(2)): the file first, then its directory.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make new and renamed names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace a small file: after this the new one is there and durable, until then the old one is.

    `mode` are the new file's permissions, less the umask, from the moment it exists.
    """
    fresh = path.with_name(path.name + ".tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
