"""A forwarder as a process that waits as it always does, only shorter: for a receiver, for room, for late copies."""

from __future__ import annotations

import sys

from bench.lab.site import Program

_PROGRAM = """
from logfwd.links import conversation, resume, sender
sender.MOST_SECONDS = conversation.FULL_PAUSE_SECONDS = resume.LATE_COPY_MARGIN_SECONDS = 0.5
from logfwd.main import main
main()
"""


def make_impatient(forwarder: Program) -> None:
    """From its next start on."""
    forwarder.argv[:1] = [sys.executable, "-c", _PROGRAM]
