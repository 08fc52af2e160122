"""Standard input of a forwarder outlives what befalls its pipeline: reloads in the middle of a line, bad disks."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from logreceiver.sinks.log.sink import read_records
from tests.support.faultydisk import FaultyDisk
from tests.support.hosts import LIMIT_SECONDS, OddHost, redirected

STDIN = '[source]\ntype = "stdin"\n'


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OddHost]:
    with OddHost(tmp_path / "site", stream=STDIN) as laid_out:
        yield laid_out


@contextlib.contextmanager
def fed(host: OddHost) -> Iterator[int]:
    """The writing end of a forwarder's standard input."""
    pipe = host.directory / "pipe"
    os.mkfifo(pipe)
    redirected(host.forwarder, f"<{pipe}")
    host.start(host.receiver)
    host.forwarder.start()
    end = os.open(pipe, os.O_WRONLY)
    try:
        assert wait_until(lambda: host.answers(host.forwarder), LIMIT_SECONDS, every_seconds=0.05)
        yield end
    finally:
        os.close(end)


def stored(host: OddHost) -> list[str]:
    return [bytes(record.value or b"").decode() for record in read_records(host.directory / "log", "s")]


def ended(host: OddHost) -> int:
    return host.forwarder.wait(seconds=LIMIT_SECONDS)


def test_a_reload_in_the_middle_of_a_line_loses_and_makes_no_record(host: OddHost) -> None:
    with fed(host) as end:
        os.write(end, b'{"n":1}\n{"n":2,"text":"the begin')
        host.wait_acknowledged(1)
        host.site.write_stream("s", f"window = 2\n{STDIN}")
        host.forwarder.signal(signal.SIGHUP)
        host.forwarder.wait_for("config reloaded")
        host.forwarder.wait_for("stream started", times=2)
        os.write(end, b'ning and the end"}\n{"n":3}\n')
    assert ended(host) == 0
    assert stored(host) == ['{"n":1}', '{"n":2,"text":"the beginning and the end"}', '{"n":3}']


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EDQUOT])
def test_commits_that_fail_for_a_while_lose_and_repeat_nothing(host: OddHost, tmp_path: Path, fault: int) -> None:
    disk = FaultyDisk.below(host.directory / "state", tmp_path / "faults")
    disk.under(host.forwarder)
    lines = [f'{{"n":{number}}}\n'.encode() for number in range(300)]
    with fed(host) as end:
        os.write(end, b"".join(lines[:100]))
        host.wait_acknowledged(100)
        disk.begin(fault)
        os.write(end, b"".join(lines[100:200]))
        host.forwarder.wait_for("stream restarting")
        os.write(end, b"".join(lines[200:]))
        disk.end(fault)
        assert wait_until(lambda: len(stored(host)) >= 300, LIMIT_SECONDS, every_seconds=0.1), host.forwarder.tail()
    assert ended(host) == 0
    assert [line.encode() + b"\n" for line in stored(host)] == lines


def test_a_closed_standard_input_is_one_that_has_ended(host: OddHost) -> None:
    host.start(host.receiver)
    redirected(host.forwarder, "0<&-")
    host.forwarder.start()
    assert ended(host) == 0
