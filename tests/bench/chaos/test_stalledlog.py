"""A stalled log holds lines back and loses none; what a killed program left comes before the next one's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.chaos.stalledlog import PIPE_BYTES, LogPipe
from bench.lab.processes import wait_until
from tests.support.patience import PATIENCE_SECONDS


def shows(path: Path, text: bytes) -> bool:
    return wait_until(lambda: path.read_bytes() == text, PATIENCE_SECONDS, every_seconds=0.01)


def test_lines_reach_the_log_unless_it_is_stalled(tmp_path: Path) -> None:
    log, path = LogPipe(), tmp_path / "log"
    with log.open(path) as out:
        out.write(b"one\n")
        assert shows(path, b"one\n")
        log.stall()
        out.write(b"two\n")  # the reader may be waiting for it already, and lets it pass
        os.set_blocking(out.fileno(), False)
        assert wait_until(
            lambda: out.write(b"x" * 100) is None, PATIENCE_SECONDS, every_seconds=0.01
        )  # full: nobody reads
        time.sleep(0.05)
        assert path.stat().st_size < PIPE_BYTES
        log.resume()
        assert wait_until(lambda: path.read_bytes().startswith(b"one\ntwo\nx"), PATIENCE_SECONDS, every_seconds=0.01)


def test_what_a_program_left_in_a_stalled_pipe_comes_before_the_lines_of_the_next(tmp_path: Path) -> None:
    log, path = LogPipe(), tmp_path / "log"
    log.stall()
    with log.open(path) as out:
        out.write(b"first\n")
    with log.open(path) as out:
        assert path.read_bytes() == b"first\n"
        out.write(b"second\n")
        log.resume()
        assert shows(path, b"first\nsecond\n")
