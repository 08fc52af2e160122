"""Hosts with little on them: nothing but the state directory to write to, and users that no table knows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.site import Program
from tests.support.hosts import OddHost

NAMELESS = 54321
"""A user id, and a group id, without a name."""

READ_ONLY = """
for each in "$WRITABLE"; do mount --bind "$each" "$each"; done
mount -o remount,bind,ro / || exit 99
for each in /tmp /var/tmp /usr/tmp /dev/shm /run /work; do
  if mountpoint -q "$each"; then mount -o remount,bind,ro "$each" || exit 99; fi
done
cd "$HERE" && ! touch x 2>/dev/null && ! touch /tmp/x 2>/dev/null && touch "$WRITABLE/x" && rm "$WRITABLE/x" || exit 98
exec "$@"
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user may enter."""
    path = Path(tempfile.mkdtemp(prefix="logfwd-bare-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def read_only(program: Program, here: Path, writable: Path) -> None:
    """Start a program where only one directory can be written to."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot make a mount namespace: run the tests as root")
    writable.mkdir()
    program.argv = ["env", "-u", "TMPDIR", "unshare", "-m", "sh", "-c", READ_ONLY, "sh", *program.argv]
    program.environment = {"WRITABLE": str(writable), "HERE": str(here)}


def test_only_the_directories_of_state_and_log_need_to_be_written_to(open_directory: Path) -> None:
    with OddHost(open_directory) as host:
        read_only(host.receiver, open_directory, open_directory / "log")
        read_only(host.forwarder, open_directory, open_directory / "state")
        host.start(host.receiver)
        host.start(host.forwarder)
        host.append('{"n":1}')
        host.wait_acknowledged(1)
        assert host.forwarder.stop() == 0
        assert host.receiver.stop() == 0


def test_a_user_without_a_name_and_home_can_run_both_programs(open_directory: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("cannot become another user: run the tests as root")
    with OddHost(open_directory) as host:
        host.append('{"n":1}')
        for path in (open_directory, *open_directory.rglob("*")):
            os.chown(path, NAMELESS, NAMELESS)
        for program in (host.receiver, host.forwarder):
            change = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups", "--no-new-privs"]
            program.argv = ["env", "-i", *change, *program.argv]
            host.start(program)
        host.wait_acknowledged(1)
        assert (open_directory / "state" / "s.spool").stat().st_uid == NAMELESS
        assert host.forwarder.stop() == 0
        assert host.receiver.stop() == 0


def test_a_program_that_is_process_1_of_a_container_takes_signals(open_directory: Path) -> None:
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot make a process namespace: run the tests as root")
    with OddHost(open_directory) as host:
        host.append('{"n":1}')
        for program in (host.receiver, host.forwarder):
            program.argv = [*namespace, *program.argv]
            host.start(program)
        host.wait_acknowledged(1)
        for program, event in ((host.forwarder, "config reloaded"), (host.receiver, "certificate reloaded")):
            (inside,) = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
            os.kill(int(inside), signal.SIGHUP)
            program.wait_for(event)
            os.kill(int(inside), signal.SIGTERM)
            assert program.wait(seconds=60) == 0, program.tail()
