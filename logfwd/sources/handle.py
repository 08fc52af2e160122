"""File handles: an inode's number together with its generation, so that an inode used again shows as another file.

name_to_handle_at(2) needs no rights. ext4, xfs, btrfs, tmpfs and most NFS servers have handles; overlayfs and FUSE have
none, and there an inode's number, times and content are all there is to go by.
"""

from __future__ import annotations

import ctypes

AT_EMPTY_PATH = 0x1000
MAX_HANDLE_BYTES = 128


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * MAX_HANDLE_BYTES),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def handle_of(fd: int) -> bytes:
    """The handle of an open file, its type in front; empty where the system has none."""
    handle, mount_id = _FileHandle(MAX_HANDLE_BYTES), ctypes.c_int()
    try:
        failed = _libc.name_to_handle_at(fd, b"", ctypes.byref(handle), ctypes.byref(mount_id), AT_EMPTY_PATH)
    except AttributeError:  # a C library without it
        return b""
    if failed:
        return b""
    return bytes((handle.handle_type & 0xFF,)) + bytes(handle.f_handle[: handle.handle_bytes])


def same_handle(one: bytes, other: bytes) -> bool | None:
    """Whether two handles are of one file; None where that cannot be known: one is missing, or of another kind."""
    if not one or not other or one[0] != other[0] or len(one) != len(other):
        return None
    return one == other
