"""The limit of open files: raised as far as the system lets it; below that, what is bounded by it is said."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from bench.lab.site import Program
from tests.support.hosts import LIMIT_SECONDS, OddHost
from tests.support.patience import PATIENCE_SECONDS

FILES = 120
MANY = '[source]\ntype = "file"\npaths = ["{}/*.log"]\nscan = "200ms"\n'


def limited(program: Program, limits: str) -> None:
    program.argv = ["sh", "-c", f'{limits} && exec "$@"', "sh", *program.argv]


def soft_limit(program: Program) -> int:
    line = next(line for line in Path(f"/proc/{program.pid}/limits").read_text().splitlines() if "open files" in line)
    return int(line.split()[3])


@contextlib.contextmanager
def idle_connections(address: str, count: int) -> Iterator[None]:
    """Connections on which nothing is ever said."""
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS))
        yield


def test_a_soft_limit_is_raised(tmp_path: Path) -> None:
    with OddHost(tmp_path) as host:
        for program in (host.receiver, host.forwarder):
            limited(program, "ulimit -Sn 100 && ulimit -Hn 2000")
            host.start(program)
            assert soft_limit(program) == 2000


def test_streams_with_many_files_share_what_there_is(tmp_path: Path) -> None:
    with OddHost(tmp_path, stream=MANY.format("a")) as host:
        host.site.write_stream("t", MANY.format("b"))
        for name in "ab":
            (tmp_path / name).mkdir()
            for number in range(FILES):
                host.append('{"n":1}', name=f"{name}/{number}.log")
        limited(host.forwarder, "ulimit -n 160")
        host.start(host.receiver)
        host.start(host.forwarder)
        (said,) = host.forwarder.wait_for("few descriptors")
        assert said["limit"] == 160 < said["wanted"]
        assert 4 <= said["files_each"] < 40
        for stream in ("s", "t"):
            host.wait_acknowledged(FILES, stream)
        for number in range(FILES):
            host.append('{"n":2}', name=f"a/{number}.log")
        host.wait_acknowledged(2 * FILES)
        assert "Too many open files" not in host.forwarder.log_path.read_text()


def test_a_receiver_with_few_descriptors_takes_fewer_links_and_says_so(tmp_path: Path) -> None:
    with OddHost(tmp_path, limits='[limits]\nhandshake = "1s"') as host:
        limited(host.receiver, "ulimit -n 120")
        host.start(host.receiver)
        (said,) = host.receiver.wait_for("few descriptors")
        assert said["limit"] == 120
        assert 10 <= said["max_links"] < 120
        with idle_connections(host.link_address, 300):
            assert host.answers(host.receiver)
            host.append('{"n":1}')
            host.start(host.forwarder)
            host.wait_acknowledged(1)


@pytest.mark.parametrize("limit", [28, 60])
def test_a_limit_that_is_just_enough_ends_no_stream_for_good(tmp_path: Path, limit: int) -> None:
    with OddHost(tmp_path) as host:
        host.start(host.receiver)
        limited(host.forwarder, f"ulimit -n {limit}")
        host.append('{"n":1}')
        host.start(host.forwarder)
        assert wait_until(lambda: host.acknowledged() == 1, LIMIT_SECONDS, every_seconds=0.1), host.forwarder.tail()


@pytest.mark.parametrize("limit", [12, 20, 27])
def test_with_fewer_descriptors_than_anything_needs_the_start_is_refused(tmp_path: Path, limit: int) -> None:
    with OddHost(tmp_path) as host:
        command = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *host.forwarder.argv]
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    assert (ended.returncode, ended.stdout) == (78, "")
    assert f"at least 28 open files, and this process may have {limit}" in ended.stderr
    assert "Traceback" not in ended.stderr
