"""Lines that are longer than what is read at a time: how far a source looks for their end, and what it says beyond.

A line is one line however long it is, so its end has to be known before its first record is made. A source looks ahead
for it, and keeps nothing of the line meanwhile if it can read it again.
"""

from __future__ import annotations

import structlog

from logfwd.sources.formats.text import Count, ignore
from streams.config.units import MIB

MAX_LINE_BYTES = 16 * MIB
"""A line whose end does not come within so many bytes is cut there: what follows is another line."""

TOO_LONG = "too_long"
"""What is counted: cuts of lines that are longer than that."""

log = structlog.get_logger("logfwd.sources")


class Cuts:
    """Counts the lines of one source that were cut; logs the sum at first, and then whenever it has doubled."""

    def __init__(self, count: Count = ignore) -> None:
        self._count = count
        self._cuts = self._logged = 0

    def cut(self, path: str) -> None:
        """A line of this file was cut."""
        self._count(TOO_LONG, 1)
        self._cuts += 1
        if self._cuts >= 2 * self._logged:
            self._logged = self._cuts
            log.warning("line cut", path=path, max_line_bytes=MAX_LINE_BYTES, cuts=self._cuts)
