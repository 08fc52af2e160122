"""The first statements of both programs, run before anything that takes time is imported.

For its first tenths of a second a program has no handler for signals; one that asks for a reload would end it. And a
program that was started without standard input, output or error must not get these numbers for a file of its own: what
is meant for people would be written into it.

While a program is loaded it makes hundreds of thousands of objects and throws few away: looking for garbage among them
would be a tenth of its start.
"""

from __future__ import annotations

import gc
import os
import signal
import sys


def prepare() -> None:
    """For `run`: hold SIGHUP back until it can take it, and collections until `program.has_started`.

    Fill the places of closed standard descriptors.
    """
    if "run" in sys.argv[1:2]:
        gc.disable()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _fill(descriptor)


def _fill(descriptor: int) -> None:
    """Nothing to read here, and what is written is discarded, also where there is no /dev."""
    try:
        opened = os.open(os.devnull, os.O_RDWR)
    except OSError:
        opened, other = os.pipe()
        os.close(other)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    os.set_inheritable(descriptor, True)
