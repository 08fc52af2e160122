"""Log lines that others can cause: of each kind a few at once and then one a second, which counts those left out."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from streams.pace import Bucket

AT_ONCE = 20.0
PER_SECOND = 1.0

Write = Callable[[int], None]
"""Writes a line that stands for so many more."""


class _Kind:
    def __init__(self, now: float) -> None:
        self.bucket = Bucket(PER_SECOND, AT_ONCE, now)
        self.left_out = 0


class Sparing:
    """`say` each line with its kind. The last one of a flood is written, too. Needs a running loop."""

    MOST_KINDS = 1000

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def say(self, kind: Hashable, write: Write) -> None:
        """Write the line, now or never; in the latter case another one will count it."""
        now = time.monotonic()
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind(now)
            if len(self._kinds) > self.MOST_KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(kind)
        if known.bucket.allows(now):
            left_out, known.left_out = known.left_out, 0
            write(left_out)
            return
        known.left_out += 1
        if known.left_out == 1:
            asyncio.get_running_loop().call_later(1 / PER_SECOND, self._catch_up, known, write)

    @staticmethod
    def _catch_up(known: _Kind, write: Write) -> None:
        """The flood may be over: say what has not been counted."""
        if known.left_out:
            left_out, known.left_out = known.left_out, 0
            write(left_out - 1)
