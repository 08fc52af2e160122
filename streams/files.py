"""Files that survive a power cut: names made durable, small files replaced whole or not at all.

A file's data and the name that leads to it are made durable apart (fsync(2)): the file first, then its directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
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


def create_file(path: Path, data: bytes, *, mode: int, replace: bool = False) -> None:
    """Create a small file, whole and durable, or raise FileExistsError if the name is taken and not to be replaced.

    The data goes into a new inode that nobody else can have opened or linked (O_EXCL, an unpredictable name), so that
    a secret is never readable with other permissions than `mode`, less the umask.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if replace:
            fresh.replace(path)
        else:
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextlib.contextmanager
def file_in_memory(data: bytes) -> Iterator[Path]:
    """A path of this process under which others read these bytes; nothing is written to any disk."""
    descriptor = os.memfd_create("logfwd")
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        yield Path(f"/proc/self/fd/{descriptor}")
