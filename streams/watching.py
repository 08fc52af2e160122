"""Files that take effect when they change: once they have kept still for a while, and never half of a change.

Looks at them from time to time, which works on every file system, also for the links of a Kubernetes ConfigMap: their
files all change in the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from streams import tasks

LOOK_SECONDS = 0.5
STILL_SECONDS = 2.0
"""An editor or a copy may still be writing."""
GONE_SECONDS = 10.0
"""A file may be replaced by deleting it first."""

Stamps = tuple[tuple[int, ...] | None, ...]


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """What changes with each file; None for one that is not there."""
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> tuple[int, ...] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


class Watched:
    """Decides when files that changed are to be taken; does no I/O, and time is an argument (seconds)."""

    def __init__(self, stamps: Stamps, now: float) -> None:
        self._taken = self._seen = stamps
        self._since = now

    def due(self, stamps: Stamps, now: float) -> bool:
        """True, once, when they differ from what was taken and have kept still."""
        if stamps != self._seen:
            self._seen, self._since = stamps, now
        if stamps == self._taken or now - self._since < (GONE_SECONDS if None in stamps else STILL_SECONDS):
            return False
        self._taken = stamps
        return True


@contextlib.asynccontextmanager
async def watching(paths: Callable[[], Iterable[Path]], changed: Callable[[], None]) -> AsyncIterator[None]:
    """Call `changed` after each change of these files, until the block is left."""
    loop = asyncio.get_running_loop()
    watched = Watched(stamps_of(paths()), loop.time())

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stamps = await asyncio.to_thread(lambda: stamps_of(paths()))  # a disk may not answer
            if watched.due(stamps, loop.time()):
                changed()

    async with tasks.running("watch", watch):
        yield
