"""Whether a disk has room for batches, and the reserve that lets a full one drain."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from logfwd.spool import room
from logfwd.spool.file import log_pages
from logfwd.spool.room import RESERVE_BYTES, Room

MIB = 1024 * 1024


class Disk:
    """A file system of this size, with so many bytes free, and perhaps a quota."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
        self.free, self.over_quota, self.now = free, False, 1000.0
        monkeypatch.setattr(room, "total_bytes", lambda _: total)
        monkeypatch.setattr(room, "free_bytes", lambda _: self.free)
        monkeypatch.setattr(os, "posix_fallocate", self._allocate)
        monkeypatch.setattr("logfwd.spool.room.time.monotonic", lambda: self.now)

    def _allocate(self, fd: int, at: int, size: int) -> None:
        if self.over_quota:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        os.ftruncate(fd, size)


@pytest.mark.parametrize(
    ("total", "reserve", "least"),
    [
        (1 << 40, RESERVE_BYTES, 2 * RESERVE_BYTES),
        (100 * MIB, 5 * MIB, 25 * MIB),
        (24 * MIB, 3 * MIB, 6 * MIB),
        (8 * MIB, 3 * MIB, 2 * MIB),
    ],
)
def test_a_small_disk_has_a_small_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, reserve: int, least: int
) -> None:
    disk = Disk(monkeypatch, total=total, free=total)
    one = Room(tmp_path / "s.spool")
    one.make_reserve()
    assert (tmp_path / "s.reserve").stat().st_size == reserve
    assert one.is_enough(0)
    assert one.is_small == (total < room.SMALL_DISK_BYTES)
    assert one.reusable_bytes_kept == min(total // 16, 16 * MIB)
    for free, is_enough in ((least + 1, True), (least, False)):
        disk.free, disk.now = free, disk.now + 1
        assert one.is_enough(0) is is_enough


def test_a_quota_leaves_no_room_until_the_reserve_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, total=1 << 40, free=1 << 39)
    disk.over_quota = True
    one = Room(tmp_path / "s.spool")
    one.make_reserve()
    assert not one.is_enough(0)
    disk.over_quota = False
    assert not one.is_enough(0), "tried again too soon"
    disk.now += room.RESERVE_RETRY_SECONDS + 1
    assert one.is_enough(0)
    assert (tmp_path / "s.reserve").exists()


def test_a_small_disk_has_a_short_write_ahead_log() -> None:
    assert log_pages(1 << 40) == 1000
    assert log_pages(24 * MIB) == 96
    assert log_pages(0) == 16
