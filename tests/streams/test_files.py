"""Files that survive a power cut: what is made durable, and in which order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from streams.files import create_file, write_atomically


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


@pytest.mark.parametrize("replace", [False, True])
def test_a_created_file_is_durable_before_its_name_and_has_its_permissions(
    tmp_path: Path, steps: list[str], replace: bool
) -> None:
    create_file(tmp_path / "key", b"secret", mode=0o600, replace=replace)
    assert [step.split()[0] for step in steps] == ["fsync", *(["rename"] if replace else []), "fsync"]
    assert steps[0].startswith("fsync .key.")
    assert steps[-1] == f"fsync {tmp_path.name}"
    (made,) = tmp_path.iterdir()
    assert (made.name, made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == ("key", b"secret", 0o600)


def test_a_file_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"old")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "key", b"new", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"old"
    create_file(tmp_path / "key", b"new", mode=0o600, replace=True)
    (made,) = tmp_path.iterdir()
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (b"new", 0o600)
