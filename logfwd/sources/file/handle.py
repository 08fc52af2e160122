"""File handles: an inode number together with its generation, which differs when the inode is used again.

name_to_handle_at(2) needs no privileges. ext4, xfs, btrfs, tmpfs and most NFS mounts have handles. overlayfs and FUSE
have none; there, only the inode number, times, names and content identify a file.
"""

from __future__ import annotations

import ctypes
import os

AT_EMPTY_PATH = 0x1000
MAX_HANDLE_BYTES = 128


def _boot() -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read(36).replace(b"-", b"").decode())
    except (OSError, ValueError):
        return b""


BOOT = _boot()
"""Names the present boot: a device keeps its number as long as it lasts. Empty if it is unknown."""


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * MAX_HANDLE_BYTES),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def id_of(status: os.stat_result) -> tuple[int, int]:
    """Device and inode: they identify a file while it is open or listed."""
    return status.st_dev, status.st_ino


def handle_of(fd: int) -> bytes:
    """The handle of an open file, preceded by its type; empty if the file system has none."""
    handle, mount_id = _FileHandle(MAX_HANDLE_BYTES), ctypes.c_int()
    try:
        failed = _libc.name_to_handle_at(fd, b"", ctypes.byref(handle), ctypes.byref(mount_id), AT_EMPTY_PATH)
    except AttributeError:  # a C library without it
        return b""
    if failed:
        return b""
    return bytes((handle.handle_type & 0xFF,)) + bytes(handle.f_handle[: handle.handle_bytes])


def same_handle(one: bytes, other: bytes) -> bool | None:
    """Whether two handles belong to one file; None if they cannot be compared (one missing, or types that differ)."""
    if not one or not other or one[0] != other[0] or len(one) != len(other):
        return None
    return one == other
