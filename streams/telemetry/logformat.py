"""How a log event becomes a line: for people, as JSON, or as logfmt; in each, what matters most comes first.

For people: the time of day to the second, the level, the event, then its fields; a list of problems and the remedy
follow on lines of their own. For machines: `timestamp`, `level`, `event`, then the bound fields and those of the event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from streams.columns import harmless
from streams.telemetry.leanstructlog import structlog

FORMATS = ("console", "json", "logfmt")
FIRST = ("timestamp", "level", "event")
LEADING = ("stream", "reason", "detail")
"""What people look for in a line."""
BELOW = ("problems", "remedy")
"""Long fields, on lines of their own."""
NOT_FOR_PEOPLE = ("logger", "more", "exception", "stack")
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_LEVELS = {"warning": "WARN"}
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"

Event = MutableMapping[str, Any]
Processor = Callable[[object, str, Event], Any]


def processors(form: str, *, colours: bool) -> list[Processor]:
    """The last steps from an event to a line in one of FORMATS."""
    if form == "console":
        return [structlog.processors.format_exc_info, Console(colours=colours)]
    render: Processor = structlog.processors.JSONRenderer() if form == "json" else _logfmt
    return [structlog.processors.format_exc_info, in_order, render]


def in_order(_: object, __: str, event: Event) -> Event:
    """FIRST, then all others as they were given, then the logger's name."""
    rest = {key: value for key, value in event.items() if key not in (*FIRST, "logger")}
    named = {key: event[key] for key in FIRST if key in event}
    return {**named, **rest, **{key: event[key] for key in ("logger",) if key in event}}


class Console:
    """A line for people, and below it what would make it too long. Nothing in it does anything to a terminal."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _: object, __: str, event: Event) -> str:
        level = str(event.get("level", "info"))
        time = str(event.get("timestamp", ""))[11:19]
        parts = [
            self._paint(_DIM, time),
            self._paint(_COLOURS.get(level, ""), _LEVELS.get(level, level.upper()).ljust(5)),
        ]
        parts.append(self._paint(_BOLD, harmless(str(event.get("event", "")), keep="\n")))
        skipped = (*FIRST, *BELOW, *NOT_FOR_PEOPLE)
        names = [name for name in LEADING if name in event]
        names += [name for name in event if name not in (*skipped, *LEADING)]
        parts += [f"{self._paint(_DIM, name + '=')}{_shown(event[name])}" for name in names if _says(event[name])]
        if event.get("more"):
            parts.append(f"(and {event['more']} more)")
        lines = [" ".join(parts)]
        for name in BELOW:
            values = event[name] if isinstance(event.get(name), list) else [event.get(name)]
            lines += [f"         {name.removesuffix('s')}: {_text(value)}" for value in values if _says(value)]
        lines += [harmless(str(event[name]), keep="\n") for name in ("stack", "exception") if event.get(name)]
        return "\n".join(lines)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours and colour else text


def _says(value: Any) -> bool:
    """Not empty: 0 and False say something."""
    return value is not None and value not in ("", [], {}, ())


def _shown(value: Any) -> str:
    """With quotes only where it would be read as several."""
    text = _text(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or "=" in text else text


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, Mapping):
        return ",".join(f"{_text(key)}:{_text(item)}" for key, item in value.items())
    return harmless(f"{value:.6g}" if isinstance(value, float) else str(value))


_write_logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)


def _logfmt(logger: object, name: str, event: Event) -> str:
    """Lists and tables as JSON; a name has no spaces."""
    fields = {harmless(key).replace(" ", "_").replace("=", "_"): _flat(value) for key, value in event.items()}
    return _write_logfmt(logger, name, fields)


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str)
    return harmless(value, keep="\n") if isinstance(value, str) else value
