"""Files that survive a power cut: what is made durable, and in which order."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from streams.files import append_secret, create_file, open_own, write_atomically


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


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not ours")
    (tmp_path / "meta.tmp").symlink_to(other)
    write_atomically(tmp_path / "meta", b"new")
    assert (other.read_bytes(), (tmp_path / "meta").read_bytes()) == (b"not ours", b"new")
    assert not (tmp_path / "meta").is_symlink()


def test_a_file_of_our_own_is_never_opened_through_a_link_and_born_private(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        open_own(tmp_path / "link", os.O_RDWR)
    umask = os.umask(0)
    try:
        os.close(open_own(tmp_path / "lock", os.O_RDWR))
    finally:
        os.umask(umask)
    assert [(path.name, stat.S_IMODE(path.lstat().st_mode)) for path in sorted(tmp_path.iterdir())][1] == (
        "lock",
        0o600,
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_secrets_are_not_appended_to_what_others_may_open(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    append_secret(path, b"one\n")
    append_secret(path, b"two\n")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"one\ntwo\n", 0o600)
    path.chmod(mode)
    with pytest.raises(PermissionError, match="remove it"):
        append_secret(path, b"three\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_secrets_are_not_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        append_secret(tmp_path / "keys", b"one\n")
    assert not (tmp_path / "elsewhere").exists()


READ = """
from streams.files import file_in_memory
with file_in_memory(b"data") as path:
    print(path.read_text(), oct(path.stat().st_mode & 0o777))
print(path.exists())
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_a_file_in_memory_is_there_also_where_proc_is_not_mounted(hidden: bool) -> None:
    shell = "mount -t tmpfs none /proc && " if hidden else ""
    inside = ["unshare", "-rm", "sh", "-c", f'{shell}exec "$@"', "-"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs namespaces")
    found = subprocess.run([*inside, sys.executable, "-c", READ], capture_output=True, text=True, check=True).stdout
    assert found.splitlines()[0].startswith("data")
    assert found.splitlines()[1] == "False"
    assert not hidden or "0o600" in found
