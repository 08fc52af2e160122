"""Both programs, whatever their standard error, input and output are: closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.lab.site import Program
from tests.support.hosts import OddHost, drained, redirected, seconds_to_stop, stuffed_pipe

RECORDS = 100
LINES = [f'{{"n":{n}}}' for n in range(RECORDS)]


def forwarded(host: OddHost) -> None:
    """Records reach the receiver's log, and both programs say of themselves that they are well."""
    host.append(*LINES)
    host.wait_acknowledged(RECORDS)
    assert host.answers(host.receiver)
    assert host.answers(host.forwarder)


def stopped(*programs: Program) -> None:
    for program in programs:
        code, seconds = seconds_to_stop(program)
        assert code == 0, program.tail()
        assert seconds < 20


@pytest.mark.parametrize("descriptors", ["2>&-", "0<&- 1>&- 2>&-"])
def test_programs_run_without_standard_descriptors(tmp_path: Path, descriptors: str) -> None:
    with OddHost(tmp_path) as host:
        for program in (host.receiver, host.forwarder):
            redirected(program, descriptors)
            host.start(program)
        forwarded(host)
        for program in (host.receiver, host.forwarder):
            opened = [os.readlink(f"/proc/{program.pid}/fd/{number}") for number in range(3)]
            assert not [path for path in opened if path.startswith(str(tmp_path)) and not path.endswith(".log")]
        stopped(host.forwarder, host.receiver)


def test_log_lines_for_a_full_disk_are_dropped_and_counted(tmp_path: Path) -> None:
    with OddHost(tmp_path) as host:
        for program in (host.receiver, host.forwarder):
            redirected(program, "2>/dev/full")
            host.start(program)
        forwarded(host)
        for program in (host.receiver, host.forwarder):
            assert host.metric(program, "log_lines_dropped_total") >= 1
        stopped(host.forwarder, host.receiver)


def test_a_pipe_that_nobody_reads_holds_up_nothing_and_gets_every_line_in_the_end(tmp_path: Path) -> None:
    with OddHost(tmp_path) as host, stuffed_pipe(tmp_path / "one") as one, stuffed_pipe(tmp_path / "two") as two:
        for program, pipe in ((host.receiver, "one"), (host.forwarder, "two")):
            redirected(program, f"2>{tmp_path / pipe}")
            host.start(program)
        forwarded(host)
        assert '"listening"' in drained(one, "handshake complete")
        assert '"stream started"' in drained(two, "link opened")
        assert [host.metric(program, "log_lines_dropped_total") for program in (host.receiver, host.forwarder)] == [
            0,
            0,
        ]
        stopped(host.forwarder, host.receiver)
        drained(one, "stopping")
        drained(two, "stopping")


def test_programs_end_though_nobody_reads_their_last_words(tmp_path: Path) -> None:
    with OddHost(tmp_path) as host, stuffed_pipe(tmp_path / "pipe"):
        for program in (host.receiver, host.forwarder):
            redirected(program, f"2>{tmp_path / 'pipe'}")
            host.start(program)
        forwarded(host)
        stopped(host.forwarder, host.receiver)


@pytest.mark.parametrize(("redirection", "code"), [("2>&-", 78), ("2>/dev/full", 78)])
@pytest.mark.parametrize("name", ["logfwd", "logreceiver"])
def test_a_configuration_is_refused_with_its_code_though_nobody_can_be_told(
    tmp_path: Path, name: str, redirection: str, code: int
) -> None:
    host = OddHost(tmp_path)
    (tmp_path / f"{name}.toml").write_text("nonsense = 1\n")
    program = host.forwarder if name == "logfwd" else host.receiver
    redirected(program, redirection)
    done = subprocess.run(program.argv, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code
