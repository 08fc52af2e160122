"""Logs: structlog to standard error, as JSON lines, or coloured on a terminal. They never block or fail (logwriter.py).

Logs of libraries go the same way. Record bytes are never logged: every bytes value is replaced by its size, and
tracebacks carry no values of variables.

This module must be the first of a program to import structlog: structlog imports rich wherever it is installed, for
tracebacks that carry the values of variables and that are never printed here. That is a quarter of the cost of a
program's start and 5 MB of its memory, so rich is hidden during that one import; and so is greenlet, which has no
threads here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import IO, Any, TextIO

from streams.columns import harmless
from streams.telemetry.logwriter import LogWriter

_HIDDEN = {"rich", "greenlet"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]
try:
    import structlog
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_DEPTH = 4
STANDARD_ERROR = 2

get_logger = structlog.get_logger
log = get_logger("logs")


def configure(*, level: str = "info", stream: IO[str] | None = None) -> None:
    """Send all logs of the process to standard error, or to `stream`; JSON unless it is a terminal."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_bytes,
    ]
    pretty = os.isatty(STANDARD_ERROR) if stream is None else stream.isatty()
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if pretty:
        last += [_spell_out, structlog.dev.ConsoleRenderer(exception_formatter=_traceback)]
    else:
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]

    handler = LogWriter(STANDARD_ERROR, _tell_of_dropped) if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=last, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def silence() -> None:
    """Log nothing: for a command that prints what it finds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable()


def _spell_out(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What peers and files put into an event does nothing to the terminal; JSON spells it out by itself."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = harmless(value, keep="\n" if key in ("event", "stack") else "")
    return event


def _traceback(out: TextIO, found: structlog.typing.ExcInfo) -> None:
    """Without the values of variables, which the pretty one would print."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, found)
    out.write(harmless(text.getvalue(), keep="\n"))


def _tell_of_dropped(lines: int) -> None:
    log.warning("log lines dropped", lines=lines)


def dropped_lines() -> int:
    """Log lines that could not be written so far."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LogWriter))


def say(line: str) -> None:
    """A line for people, without time and level: the last words of a program. It never blocks or fails, either."""
    line = harmless(line)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogWriter):
            handler.write(line)
            return
    with contextlib.suppress(OSError, AttributeError):  # full; none at all
        sys.stderr.write(f"{line}\n")


def flush() -> None:
    """Wait a bounded time until the lines so far are written."""
    for handler in logging.getLogger().handlers:
        with contextlib.suppress(OSError):
            handler.flush()


def hide_bytes(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace bytes by their size, wherever they are in an event."""
    for key, value in event.items():
        if key not in ("exc_info", "_record"):
            event[key] = _without_bytes(value, MAX_DEPTH)
    return event


def _without_bytes(value: Any, depth: int) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{memoryview(value).nbytes} bytes>"
    if isinstance(value, str | int | float | None):
        return value
    if depth and isinstance(value, Mapping):
        return {str(_without_bytes(key, 0)): _without_bytes(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_without_bytes(item, depth - 1) for item in value]
    return f"<{type(value).__name__}>" if isinstance(value, Mapping | list | tuple | set | frozenset) else str(value)
