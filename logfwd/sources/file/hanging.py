"""Says when a file system does not answer: the thread that reads files waits for it, and cannot say so itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from logfwd.clocks import clock

HANGS_SECONDS = 30.0
"""Longer than a scan of many files takes on a slow disk."""

log = structlog.get_logger("logfwd.sources.file")


class Hanging:
    """Whether a step of the thread has been under way for too long."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.step_began: float | None = None
        """None while no step is under way."""

    @property
    def seconds(self) -> float:
        """How long the file system has not answered; 0 if it does."""
        waited = 0.0 if self.step_began is None else clock() - self.step_began
        return waited if waited > HANGS_SECONDS else 0.0

    async def watch(self) -> None:
        """Log when it stops to answer, and when it answers again. Never ends by itself."""
        said = False
        while True:
            await asyncio.sleep(HANGS_SECONDS / 3)
            if self.seconds and not said:
                log.warning("files do not answer", paths=list(self._paths), seconds=round(self.seconds))
            elif said and not self.seconds:
                log.info("files answer again", paths=list(self._paths))
            said = bool(self.seconds)
