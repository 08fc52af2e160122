"""Files that survive a power cut: names made durable, small files replaced whole or not at all.

A file's data and the name that leads to it are made durable apart (fsync(2)): the file first, then its directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
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
    fresh.unlink(missing_ok=True)  # of an earlier crash
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, mode: int, replace: bool = False, like: Path | None = None) -> None:
    """Create a small file, whole and durable, or raise FileExistsError if the name is taken and not to be replaced.

    The data goes into a new inode that nobody else can have opened or linked (O_EXCL, an unpredictable name), so that
    a secret is never readable with other permissions than `mode`, less the umask. Those of the file `like`, if one is
    named, take their place before it has its name.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            if like is not None:
                _permit_like(out.fileno(), like)
            os.fsync(out.fileno())
        if replace:
            fresh.replace(path)
        else:
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


def open_own(path: Path, flags: int) -> int:
    """Open a file of this program's own, which nobody else may read; created if need be.

    Its name may stand in a directory in which others write, too: a symbolic link there is refused (OSError), or the
    file that it names would be changed with this program's rights.
    """
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def append_secret(path: Path, data: bytes) -> None:
    """Append to a file that only its owner can read, created if need be; OSError if it is not such a file of ours."""
    with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "ab") as out:
        status = os.fstat(out.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "others have access to it; remove it", str(path))
        out.write(data)


def _permit_like(descriptor: int, like: Path) -> None:
    status = like.stat()
    with contextlib.suppress(PermissionError):  # only root gives files away
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


@contextlib.contextmanager
def file_in_memory(data: bytes) -> Iterator[Path]:
    """A path of this process under which others read these bytes. Only without /proc they are written to a disk."""
    descriptor = os.memfd_create("logfwd")
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        path = Path(f"/proc/self/fd/{descriptor}")
        if path.exists():
            yield path
            return
    with tempfile.NamedTemporaryFile("wb", prefix="logfwd-") as out:
        out.write(data)
        out.flush()
        yield Path(out.name)
