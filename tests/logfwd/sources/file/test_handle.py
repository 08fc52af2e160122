"""File handles: the same for every name of a file, different for each file that gets an inode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logfwd.sources.file import handle
from logfwd.sources.file.handle import handle_of, same_handle


def handle_at(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return handle_of(fd)
    finally:
        os.close(fd)


def test_a_file_keeps_its_handle_whatever_its_name_and_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = handle_at(path)
    os.link(path, tmp_path / "b")
    path.rename(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"two")
    assert [handle_at(tmp_path / name) for name in "bc"] == [first, first]


def test_an_inode_that_is_used_again_has_another_handle(tmp_path: Path) -> None:
    seen: dict[int, set[bytes]] = {}
    for _ in range(50):
        path = tmp_path / "a"
        path.write_bytes(b"one")
        seen.setdefault(path.stat().st_ino, set()).add(handle_at(path))
        path.unlink()
    handles = [handle for handles in seen.values() for handle in handles]
    assert len(handles) == 50 or handles == [b""] * len(seen)  # a file system without handles has none at all


def test_handles_that_cannot_be_compared_decide_nothing() -> None:
    assert same_handle(b"\x01abcd", b"\x01abcd") is True
    assert same_handle(b"\x01abcd", b"\x01abce") is False
    for other in (b"", b"\x02abcd", b"\x01abcdefgh"):
        assert same_handle(b"\x01abcd", other) is None
        assert same_handle(other, b"\x01abcd") is None
    assert same_handle(b"", b"") is None


def test_without_support_in_library_or_file_system_there_is_no_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert handle_of(-1) == b""
    monkeypatch.setattr(handle, "_libc", object())
    (tmp_path / "a").touch()
    assert handle_at(tmp_path / "a") == b""
