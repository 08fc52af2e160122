"""Logs: one JSON object a line on standard error, libraries included, and never record bytes or values of variables."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from streams.telemetry import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is global: put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_its_bound_context() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    structlog.get_logger("logfwd").bind(stream="http").info("link opened", group="X25519MLKEM768")
    (event,) = lines(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "link opened",
        "level": "info",
        "logger": "logfwd",
        "stream": "http",
        "group": "X25519MLKEM768",
    }


def test_context_variables_are_bound_to_every_event() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    with structlog.contextvars.bound_contextvars(link=7):
        structlog.get_logger("a").info("x")
    assert lines(out)[0]["link"] == 7


def test_events_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    logs.configure(level="warning", stream=out)
    for level in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("a"), level)(level)
        getattr(logging.getLogger("library"), level)(level)
    assert [event["event"] for event in lines(out)] == ["warning", "warning", "error", "error"]


def test_logs_and_warnings_of_libraries_go_the_same_way() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    logging.getLogger("aiokafka").warning("no %s", "broker", extra={"a": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    first, second = lines(out)
    assert (first["event"], first["logger"], first["level"]) == ("no broker", "aiokafka", "warning")
    assert second["logger"] == "py.warnings"
    assert "careful" in second["event"]


def test_record_bytes_are_never_logged() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    secret = b"secret-record"
    structlog.get_logger("a").info(
        "x",
        a=secret,
        b=bytearray(secret),
        c=memoryview(secret),
        d=[secret, (secret,)],
        e={"f": secret},
        g={secret},
        h=[[[[[secret]]]]],
        i={b"secret-key": 1},
        path=object,
    )
    text = out.getvalue()
    assert "secret" not in text
    assert lines(out)[0]["a"] == "<13 bytes>"
    assert lines(out)[0]["d"] == ["<13 bytes>", ["<13 bytes>"]]


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_traceback_has_no_values_of_variables(out: io.StringIO) -> None:
    logs.configure(stream=out)
    secret_value = "s3cret" * 3
    try:
        raise RuntimeError(len(secret_value))
    except RuntimeError:
        structlog.get_logger("a").exception("failed")
    assert "RuntimeError: 18" in out.getvalue()
    assert "s3crets3cret" not in out.getvalue()


def test_a_person_at_a_terminal_gets_no_json() -> None:
    out = Terminal()
    logs.configure(stream=out)
    structlog.get_logger("a").info("link opened", stream="http")
    assert "link opened" in out.getvalue()
    assert not out.getvalue().lstrip().startswith("{")


def test_logs_go_to_standard_error_and_leave_standard_output_to_results() -> None:
    script = (
        "from streams.telemetry import logs; import structlog; logs.configure(); structlog.get_logger('a').info('x')"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert result.stdout == b""
    assert json.loads(result.stderr)["event"] == "x"


@pytest.mark.parametrize("program", ["logfwd", "logreceiver"])
def test_the_start_of_a_program_imports_structlog_without_rich_and_greenlet(program: str) -> None:
    script = f"import sys, {program}.cli; print([name in sys.modules for name in ('structlog', 'rich', 'greenlet')])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert result.stdout == b"[True, False, False]\n"


def test_nothing_in_an_event_is_obeyed_by_a_terminal() -> None:
    out = Terminal()
    logs.configure(stream=out)
    evil = "\x1b]0;title\x07\x9b2J\r\nfaked line"
    try:
        raise ValueError(evil)
    except ValueError:
        structlog.get_logger("a").exception("failed", identity=evil, more=[evil], table={evil: evil})
    logging.getLogger("library").warning("%s", evil)
    shown = out.getvalue()
    ours = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # its own colours
    assert "\\x1b]0;title\\x07\\x9b2J" in ours
    assert not set("\x1b\x07\x9b\r") & set(ours)
    assert sum(line.startswith("faked line") for line in ours.splitlines()) == 2, "of the traceback and of the library"
