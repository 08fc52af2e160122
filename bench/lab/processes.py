"""What everything that runs child processes here shares: waiting, failing, and no child that outlives its parent."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # looked up before a fork, not between fork and exec


class StartFailed(Exception):
    """A program did not come up, or did not do its work; the text has the end of its log."""


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills the child with the thread that started it."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float, *, every_seconds: float = 0.5) -> bool:
    """Poll rarely enough not to disturb a measurement; False if the condition is not met in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_seconds)
    return True
