"""What a line of log looks like, for people and for machines."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from streams.telemetry import logs
from tests.streams.telemetry.test_logs import Terminal, _as_before

__all__ = ["_as_before"]


@pytest.fixture(autouse=True)
def _no_choice_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def log_a_few(out: io.StringIO, form: str | None = None) -> str:
    logs.configure(stream=out, form=form)
    log = structlog.get_logger("logfwd").bind(stream="http")
    log.warning("link failed", bytes_in=7, twins={}, reason="not_allowed", detail="it may not", seconds=0.25000001)
    log.error("config rejected", problems=["a.toml: no", "b.toml: no"], remedy="mend it\x1b[2J", waits=["a", "b"])
    return out.getvalue()


def test_json_begins_with_time_level_and_event_and_ends_with_the_logger() -> None:
    first, second = map(json.loads, log_a_few(io.StringIO()).splitlines())
    assert list(first)[:4] == ["timestamp", "level", "event", "stream"]
    assert list(first)[4:] == ["bytes_in", "twins", "reason", "detail", "seconds", "logger"]
    assert second["problems"] == ["a.toml: no", "b.toml: no"]


def test_logfmt_is_in_the_same_order_and_does_nothing_to_a_terminal() -> None:
    first, second = log_a_few(Terminal(), "logfmt").splitlines()
    assert 'level=warning event="link failed" stream=http bytes_in=7' in first
    assert 'problems="[\\"a.toml: no\\", \\"b.toml: no\\"]"' in second
    assert "\x1b" not in first + second


def test_people_get_short_lines_with_what_matters_first() -> None:
    lines = log_a_few(io.StringIO(), "console").splitlines()
    assert [line[8:] for line in lines[:1]] == [
        ' WARN  link failed stream=http reason=not_allowed detail="it may not" bytes_in=7 seconds=0.25'
    ]
    assert lines[1][8:] == " ERROR config rejected stream=http waits=a,b"
    assert [line.strip() for line in lines[2:]] == [
        "problem: a.toml: no",
        "problem: b.toml: no",
        "remedy: mend it\\x1b[2J",
    ]


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" in log_a_few(Terminal())
    assert "\x1b" not in log_a_few(io.StringIO(), "console")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in log_a_few(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in log_a_few(Terminal())


def test_what_a_library_logs_has_the_same_shape() -> None:
    out = io.StringIO()
    logs.configure(stream=out, form="console")
    logging.getLogger("aiokafka").warning("no %s", "broker")
    assert out.getvalue()[8:] == " WARN  no broker\n"
