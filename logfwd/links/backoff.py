"""How long to wait before trying again: doubling, bounded, with jitter so that forwarders do not return all at once."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.1
MOST_SECONDS = 10.0
MOST_DOUBLINGS = 20


class Backoff:
    """`next()` after each failure, `reset()` after a success."""

    def __init__(self) -> None:
        self._failures = 0

    def next(self, *, most_seconds: float = MOST_SECONDS) -> float:
        """Seconds to wait now."""
        seconds = min(FIRST_SECONDS * 2.0**self._failures, most_seconds)
        self._failures = min(self._failures + 1, MOST_DOUBLINGS)
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 — spreads load, hides nothing

    @property
    def is_calm(self) -> bool:
        """True if nothing has failed since the last success."""
        return self._failures == 0

    def reset(self) -> None:
        self._failures = 0
