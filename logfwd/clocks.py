"""Time for intervals."""

from __future__ import annotations

import time


def clock() -> float:
    """Seconds that go on counting while the machine sleeps; never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
