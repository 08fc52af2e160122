"""The state directory belongs to one process at a time, and to one user."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from logfwd.state_dir import lock
from streams.errors import ConfigError
from tests.support.patience import PATIENCE_SECONDS

HOLDER = """
import sys, time
from pathlib import Path
from logfwd.state_dir import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def refusal(state_dir: Path) -> str:
    """Why the directory cannot be owned."""
    with pytest.raises(ConfigError) as caught, lock(state_dir):
        pass
    (problem,) = caught.value.problems
    assert (problem.path, problem.key) == (state_dir, "state_dir")
    return problem.message


def test_it_is_created_with_its_parents_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with lock(tmp_path / "var" / "logfwd"):
            assert (tmp_path / "var" / "logfwd").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(umask)


def test_a_second_owner_is_refused_until_the_first_has_left(tmp_path: Path) -> None:
    with lock(tmp_path):
        assert refusal(tmp_path) == "is in use by another logfwd process"
        assert refusal(tmp_path) == "is in use by another logfwd process", "a refused try does not free it"
    with lock(tmp_path):
        pass


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_two_directories_do_not_know_each_other(tmp_path: Path) -> None:
    with lock(tmp_path / "a"), lock(tmp_path / "b"):
        pass


def test_a_process_that_is_killed_frees_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert refusal(tmp_path) == "is in use by another logfwd process"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_path_that_cannot_be_a_directory_is_a_config_error_with_its_reason(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    message = refusal(tmp_path / path)
    assert message.startswith("cannot be used: ")
    assert str(tmp_path / "file") in message


def test_a_lock_file_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    assert "cannot be used" in refusal(tmp_path)


def test_a_directory_that_anybody_may_write_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o2777)
    with lock(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o2775


def test_a_link_in_place_of_the_lock_is_refused_and_what_it_names_is_untouched(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not ours")
    (tmp_path / "lock").symlink_to(other)
    assert "cannot be used" in refusal(tmp_path)
    assert other.read_bytes() == b"not ours"


def test_why_it_cannot_be_used_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "state") == f"cannot be used: {tmp_path / 'file' / 'state'}: Not a directory"
