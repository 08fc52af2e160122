"""File systems that fail under a running forwarder: its stream says so, waits, and goes on where it was."""

from __future__ import annotations

import errno
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from logreceiver.sinks.log.sink import read_records
from tests.support.faultydisk import FaultyDisk
from tests.support.hosts import LIMIT_SECONDS, OddHost, seconds_to_stop
from tests.support.patience import PATIENCE_SECONDS

N = 50


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OddHost]:
    with OddHost(tmp_path / "site") as laid_out:
        yield laid_out


@pytest.fixture
def disk(host: OddHost, tmp_path: Path) -> FaultyDisk:
    """The forwarder's state directory."""
    made = FaultyDisk.below(host.directory / "state", tmp_path / "faults")
    made.under(host.forwarder)
    return made


def ready(host: OddHost) -> dict[str, str]:
    """Why the forwarder is not ready; nothing if it is."""
    try:
        with urllib.request.urlopen(f"http://{host.forwarder_admin}/readyz", timeout=PATIENCE_SECONDS):
            return {}
    except urllib.error.HTTPError as error:
        return {"readyz": error.read().decode()}


def stored(host: OddHost) -> list[int]:
    return [json.loads(record.value or b"")["n"] for record in read_records(host.directory / "log", "s")]


def accepted(host: OddHost) -> float:
    return host.metric(host.forwarder, "logfwd_records_total", 'state="accepted"')


def write(host: OddHost, first: int, end: int) -> None:
    host.append(*(json.dumps({"n": number}) for number in range(first, end)))


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_nothing_for_a_while_stops_its_stream_and_no_record_is_lost_or_repeated(
    host: OddHost, disk: FaultyDisk, fault: int
) -> None:
    host.start(host.receiver)
    host.start(host.forwarder)
    write(host, 0, N)
    host.wait_acknowledged(N)
    disk.begin(fault)
    write(host, N, 2 * N)
    assert wait_until(lambda: "s" in ready(host).get("readyz", ""), LIMIT_SECONDS, every_seconds=0.05)
    disk.end(fault)
    write(host, 2 * N, 3 * N)
    assert wait_until(lambda: len(stored(host)) >= 3 * N, LIMIT_SECONDS, every_seconds=0.1), host.forwarder.tail()
    assert wait_until(lambda: not ready(host), LIMIT_SECONDS, every_seconds=0.05), host.forwarder.tail()
    assert host.forwarder.stop() == 0
    assert stored(host) == list(range(3 * N))
    said = host.forwarder.log_path.read_text()
    assert "Traceback" not in said
    assert ("disk is full" in said) == (fault == errno.EDQUOT)


def test_a_disk_that_hangs_does_not_keep_a_forwarder_from_ending(host: OddHost, disk: FaultyDisk) -> None:
    host.start(host.receiver)
    host.start(host.forwarder)
    write(host, 0, N)
    host.wait_acknowledged(N)
    disk.begin("hang")
    write(host, N, 2 * N)
    assert wait_until(lambda: accepted(host) == 2 * N, LIMIT_SECONDS, every_seconds=0.05)
    code, seconds = seconds_to_stop(host.forwarder)
    assert code == 1, f"{seconds} {host.forwarder.tail()}"
    assert seconds < 1 + 3 + 10, "stop_grace is 1 s"
    disk.end("hang")
    host.start(host.forwarder)
    assert wait_until(lambda: len(stored(host)) >= 2 * N, LIMIT_SECONDS, every_seconds=0.1), host.forwarder.tail()
    assert host.forwarder.stop() == 0
    assert stored(host) == list(range(2 * N))


def test_a_disk_that_hangs_does_not_keep_a_receiver_from_ending(host: OddHost, tmp_path: Path) -> None:
    disk = FaultyDisk.below(host.directory / "log", tmp_path / "faults")
    disk.under(host.receiver)
    host.start(host.receiver)
    host.start(host.forwarder)
    write(host, 0, N)
    host.wait_acknowledged(N)
    disk.begin("hang")
    write(host, N, 2 * N)
    assert wait_until(lambda: accepted(host) == 2 * N, LIMIT_SECONDS, every_seconds=0.05)
    assert host.answers(host.receiver)
    _, seconds = seconds_to_stop(host.receiver)
    assert seconds < 1 + 3 + 10, "stop_grace is 1 s"
    disk.end("hang")
    host.start(host.receiver)
    host.wait_acknowledged(2 * N)
    assert stored(host) == list(range(2 * N))
