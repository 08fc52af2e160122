"""Lines that come again by themselves are one a minute, with their number; nobody's act is hidden."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
import structlog

from streams.telemetry import folding, logs
from streams.telemetry.folding import SECONDS, Folding
from tests.streams.telemetry.test_logs import _as_before

__all__ = ["_as_before"]


class Told:
    """A Folding with a clock that jumps: what it passed, and what it wrote by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.passed: list[dict[str, Any]] = []
        self.written: list[dict[str, Any]] = []
        self.folding = Folding(self.written.append, lambda: self.now)
        self.folding._start_timer = lambda: None  # type: ignore[method-assign]

    def log(self, event: str = "link failed", **fields: Any) -> None:
        try:
            self.passed.append(dict(self.folding(None, "", {"event": event, "level": "warning", **fields})))
        except structlog.DropEvent:
            return


def test_the_first_is_passed_and_the_others_of_a_minute_become_one_line() -> None:
    told = Told()
    for wait in range(37):
        told.log(reason="not_allowed", stream="http", retry_in_seconds=wait, peer=f"127.0.0.1:{wait}")
    assert len(told.passed) == 1
    told.folding.tell()
    assert told.written == []
    told.now = SECONDS
    told.folding.tell()
    (line,) = told.written
    assert (line["repeated"], line["retry_in_seconds"], line["event"]) == (36, 36, "link failed")
    told.log(reason="not_allowed", stream="http")
    assert len(told.passed) == 1, "still the same trouble: counted in the next minute"
    told.now = 2 * SECONDS
    told.folding.tell()
    assert "repeated" not in told.written[1], "a single one is itself"
    told.now = 4 * SECONDS
    told.folding.tell()
    told.log(reason="not_allowed", stream="http")
    assert len(told.passed) == 2, "after a quiet minute it is news"


def test_other_words_are_another_kind_and_acts_are_never_folded() -> None:
    told = Told()
    for stream in ("a", "b"):
        for reason in ("not_allowed", "disconnected"):
            told.log(stream=stream, reason=reason)
    assert len(told.passed) == 4
    for _ in range(3):
        told.log("config rejected", reason="invalid")
    assert len(told.passed) == 7


def test_lines_that_stand_for_more_are_added_up() -> None:
    told = Told()
    for _ in range(3):
        told.log("link refused", more=9)
    told.folding.tell(all_of_them=True)
    assert told.written[0]["repeated"] == 20


def test_kinds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST_KINDS", 10)
    told = Told()
    for number in range(100):
        told.log(stream=str(number))
    assert (len(told.passed), len(told.folding._kinds)) == (100, 10)


def test_the_minutes_end_is_noticed_although_nothing_else_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "SECONDS", 0.2)
    out = io.StringIO()
    logs.configure(stream=out)
    for _ in range(5):
        structlog.get_logger("logfwd").warning("link failed", stream="http")
    assert logs._folding is not None
    timer = logs._folding._timer
    assert timer is not None
    timer.join(5)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert "repeated" not in first
    assert (second["repeated"], second["stream"], second["level"], second["logger"]) == (4, "http", "warning", "logfwd")


def test_the_end_of_a_program_tells_what_was_counted() -> None:
    script = (
        "from streams.telemetry import logs; from streams.signals import leave; logs.configure();"
        "[logs.get_logger('a').warning('link failed') for _ in range(9)]; leave(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert [json.loads(line).get("repeated") for line in done.stderr.splitlines()] == [None, 8]
