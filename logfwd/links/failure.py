"""What went wrong last with a stream's links, for whoever asks."""

from __future__ import annotations

import time
from typing import NamedTuple


class Failure(NamedTuple):
    """Of a link, or of a batch that was refused."""

    reason: str
    detail: str
    """In words; those of the receiver, if it gave any."""
    at: float
    """Seconds since the epoch."""

    @classmethod
    def now(cls, reason: str, detail: str) -> Failure:
        return cls(reason, detail, time.time())
