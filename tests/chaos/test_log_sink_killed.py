"""kill -9 of a process that appends to the embedded log: what it acknowledged is there, once, in order."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from logreceiver.sinks.log.sink import read_records
from tests.support.batches import values

KILLS = 10
TOPIC = "http"


@pytest.mark.slow
def test_what_was_acknowledged_survives_ten_kills_at_any_moment(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(KILLS):
        argv = [sys.executable, "-m", "tests.support.appender", str(tmp_path), TOPIC]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            started, known = child.stdout.readline().split()
            assert started == "start"
            assert int(known) >= acknowledged
            for _ in range(random.randint(1, 150)):
                acknowledged = int(child.stdout.readline())
            child.kill()
            rest = child.stdout.read().split("\n")[:-1]
            acknowledged = int(rest[-1]) if rest else acknowledged
    stored = [record.value or b"" for record in read_records(tmp_path, TOPIC)]
    assert len(stored) > acknowledged
    assert stored == values(len(stored))
    assert not list(tmp_path.glob(f"{TOPIC}-0/*.damaged"))
