"""Logs: structlog to standard error, in one of the formats of logformat.py. They never block or fail (logwriter.py).

Logs of libraries go the same way. Record bytes are never logged: every bytes value is replaced by its size, and
tracebacks carry no values of variables.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import IO, Any

from streams.columns import harmless
from streams.telemetry.folding import Folding
from streams.telemetry.leanstructlog import structlog
from streams.telemetry.logformat import processors
from streams.telemetry.logwriter import LogWriter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_DEPTH = 4
STANDARD_ERROR = 2

get_logger = structlog.get_logger
log = get_logger("logs")
_folding: Folding | None = None


def configure(*, level: str = "info", form: str | None = None, stream: IO[str] | None = None) -> None:
    """Send all logs of the process to standard error, or to `stream`, in one of FORMATS.

    Without one: for people if it is a terminal, else JSON. Colours are for terminals, without NO_COLOR (no-color.org).
    """
    global _folding  # noqa: PLW0603 — logging belongs to the process
    _folding = Folding(_log_again)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_bytes,
    ]
    to_terminal = os.isatty(STANDARD_ERROR) if stream is None else stream.isatty()
    colours = to_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    last += processors(form or ("console" if to_terminal else "json"), colours=colours)

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
            *shared[:3],
            _folding,
            *shared[3:],
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


def _log_again(event: dict[str, Any]) -> None:
    """A line that stands for several."""
    fields = {key: value for key, value in event.items() if key not in ("event", "level", "logger")}
    get_logger(event["logger"]).log(LEVELS[event["level"]], event["event"], **fields)


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
    """Write what is still counted, and wait a bounded time until the lines so far are written."""
    if _folding is not None:
        _folding.tell(all_of_them=True)
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
