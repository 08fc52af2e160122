"""Log lines that come again by themselves: one of a kind a minute, with their number.

The first of a kind is written at once. What is like it within a minute is counted; at the minute's end one line stands
for all of these, with `repeated`. Like it is what has the same words: numbers may differ, and so may a peer's port.
Events that somebody caused on purpose, such as a reload that is refused, are never folded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any

import msgspec

from streams.telemetry.leanstructlog import structlog
from streams.telemetry.logwriter import start_without_signals

FOLDED = frozenset(
    {
        "batch not stored",
        "broker unreachable",
        "handshake failed",
        "link failed",
        "link refused",
        "run not opened",
        "stream restarting",
    }
)
"""Events that a fault causes again and again. What changes how things are, such as a link that opens, always counts."""
SECONDS = 60.0
MOST_KINDS = 1000
DIFFERENT = ("peer", "link", "address")
"""Fields of words that differ between lines of a kind."""
WRITTEN = "_folded"
"""Marks a line that stands for others."""

Event = MutableMapping[str, Any]


class _Kind(msgspec.Struct):
    began: float
    count: int = 0
    last: dict[str, Any] = {}


class Folding:
    """A processor of structlog, after those that add level and logger; `write` logs an event's fields again."""

    def __init__(self, write: Callable[[dict[str, Any]], None], now: Callable[[], float] = time.monotonic) -> None:
        self._write, self._now = write, now
        self._kinds: dict[Hashable, _Kind] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __call__(self, _: object, __: str, event: Event) -> Event:
        """Pass the event, or raise DropEvent and count it."""
        if event.pop(WRITTEN, False) or event.get("event") not in FOLDED:
            return event
        with self._lock:
            kind = self._kinds.get(key := _key(event))
            if kind is None or (self._now() - kind.began >= SECONDS and not kind.count):
                if kind is not None or len(self._kinds) < MOST_KINDS:
                    self._kinds[key] = _Kind(self._now())
                return event
            kind.count += 1 + int(event.get("more") or 0)
            kind.last = {name: value for name, value in event.items() if name != "more"}
            self._start_timer()
        raise structlog.DropEvent

    def tell(self, *, all_of_them: bool = False) -> None:
        """Write a line for each kind whose minute is over, and begin another minute for it."""
        told = []
        with self._lock:
            now = self._now()
            for key, kind in list(self._kinds.items()):
                if not all_of_them and now - kind.began < SECONDS:
                    continue
                if kind.count:
                    told.append({**kind.last, WRITTEN: True, **({"repeated": kind.count} if kind.count > 1 else {})})
                    self._kinds[key] = _Kind(now)
                else:
                    del self._kinds[key]
        for event in told:
            self._write(event)

    def _start_timer(self) -> None:
        """A thread that waits for the next minute's end, while there is something to tell."""
        if self._timer is not None and self._timer.is_alive():
            return
        began = min(kind.began for kind in self._kinds.values() if kind.count)
        timer = threading.Timer(max(began + SECONDS - self._now(), 0.0) + 0.01, self._due)
        timer.daemon, timer.name = True, "log-folding"
        self._timer = timer if start_without_signals(timer) else None  # the next line tries again

    def _due(self) -> None:
        self.tell()
        with self._lock:
            self._timer = None
            if any(kind.count for kind in self._kinds.values()):
                self._start_timer()


def _key(event: Event) -> Hashable:
    words = (
        (name, str(value))
        for name, value in event.items()
        if name not in DIFFERENT and not isinstance(value, int | float)
    )
    return frozenset(words)
