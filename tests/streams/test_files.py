"""Files that survive a power cut: what is made durable, and in which order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from streams.files import write_atomically


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable or renamed, in order."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return done


def test_the_data_is_durable_before_the_name_and_the_name_before_the_return(tmp_path: Path, steps: list[str]) -> None:
    write_atomically(tmp_path / "meta", b"new")
    assert steps == ["fsync meta.tmp", "rename meta.tmp meta", f"fsync {tmp_path.name}"]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("meta", b"new")]


def test_a_longer_leftover_of_an_earlier_crash_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "meta.tmp").write_bytes(b"longer than the new content")
    write_atomically(tmp_path / "meta", b"new")
    assert (tmp_path / "meta").read_bytes() == b"new"


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(tmp_path / "key", b"secret", mode=0o600)
    assert seen[0] == 0o600
