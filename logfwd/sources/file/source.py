"""The file source: drives a `Follower` in a thread of its own, and wakes it when files were written to.

With inotify, a line is read as soon as it was written (or in pieces of 20 ms, while more are), and an idle source costs
one scan per `scan_seconds`. Without it, files are polled every 20 ms while they are active, and every 250 ms otherwise.
Blocks that were read and not handed over are lost with the task, and read again from the committed positions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import structlog

from logfwd.clocks import clock
from logfwd.sources.file.follow import Follower
from logfwd.sources.file.hanging import Hanging
from logfwd.sources.file.notify import NOTHING, Events, Inotify
from logfwd.sources.file.pace import TRICKLE_SECONDS, Pace, Reads
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Others
from logfwd.sources.formats.text import Count, ignore
from logfwd.sources.permits import Permit, Permits
from logfwd.sources.position import FILE, Block, Mark, Position
from logfwd.sources.settings import FileSource
from streams import tasks
from streams.config.units import MIB
from streams.descriptors import readable

POLL_SECONDS, IDLE_POLL_SECONDS, ACTIVE_SECONDS = 0.02, 0.25, 5.0
log = structlog.get_logger("logfwd.sources.file")


class FileTail:
    """Follows files; see `Follower` for the rules."""

    def __init__(
        self,
        settings: FileSource,
        *,
        max_record_bytes: int,
        block_bytes: int = MIB,
        permit: Permit | None = None,
        use_inotify: bool = True,
        others: Others = tuple,
        count: Count = ignore,
        report: Report | None = None,
    ) -> None:
        self._settings, self._max_record_bytes, self._block_bytes = settings, max_record_bytes, block_bytes
        self._use_inotify, self._others, self._count = use_inotify, others, count
        self._report, self._permit = report or Report(), permit or Permits(1).for_a_stream()
        self._follower: Follower | None = None
        self._pace, self._reads = Pace(settings.scan_seconds), Reads(block_bytes)
        self._active_until = 0.0
        self._end_at = inf
        self._hanging = Hanging(settings.paths)

    async def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """Blocks of whole lines; an empty one carries only a position. Never ends by itself."""
        loop = asyncio.get_running_loop()
        notifier = self._make_notifier()
        thread = ThreadPoolExecutor(1, thread_name_prefix="file-source")
        follower = self._follower = Follower(
            self._settings,
            marks(positions),
            block_bytes=self._block_bytes,
            max_record_bytes=self._max_record_bytes,
            notifier=notifier,
            others=self._others,
            count=self._count,
            report=self._report,
        )
        events, woken = NOTHING._replace(scan=True), False
        watching = tasks.forever("hanging files", self._hanging.watch)
        try:
            while True:
                await self._permit.take()
                self._hanging.step_began = began = clock()
                blocks = await loop.run_in_executor(thread, self._step, follower, events)
                self._hanging.step_began = None
                found = len(blocks)
                self._reads.done(began, sum(len(block.data) for block in blocks), woken=woken)
                while blocks:  # drops each as it is handed over, so none is kept while the next are read
                    yield blocks.pop(0)
                self._permit.give_back()
                woken = not found and await self._wait(follower, notifier)
                if (pause := self._reads.at - clock()) > 0:
                    await asyncio.sleep(pause)
                events = NOTHING if notifier is None else notifier.drain()
        finally:
            watching.cancel()
            self._permit.give_back()
            thread.submit(_close, follower, notifier)  # after the step that may be under way
            thread.shutdown(wait=False)

    def _make_notifier(self) -> Inotify | None:
        if not self._use_inotify:
            return None
        try:
            return Inotify()
        except (OSError, AttributeError) as error:
            log.warning("inotify unavailable", reason=str(error))
            return None

    def _step(self, follower: Follower, events: Events) -> list[Block]:
        """Scan if it is time, then read up to one block's size from as many files as needed. Runs in the thread."""
        now, wall_ms = clock(), time.time_ns() // 1_000_000
        follower.scan_wanted = follower.scan_wanted or events.scan
        if now >= self._pace.next_scan(wanted=follower.scan_wanted):
            self._scan(follower, now, wall_ms)
        else:
            follower.follow_new(events.paths, now, wall_ms)
        follower.written(events.watches, events.paths, now)
        self._end_at = follower.end_due(now)
        if follower.needs_polling:
            follower.poll(now)
        blocks: list[Block] = []
        room = self._block_bytes
        while room > 0 and (block := follower.read(now, wall_ms)) is not None:
            blocks.append(block)
            room -= len(block.data) + 1
        if blocks:
            self._active_until = now + ACTIVE_SECONDS
        return blocks

    def _scan(self, follower: Follower, now: float, wall_ms: int) -> None:
        cpu_started = time.thread_time()
        follower.scan(now, wall_ms)
        self._pace.scanned(now, clock(), time.thread_time() - cpu_started)

    async def _wait(self, follower: Follower, notifier: Inotify | None) -> bool:
        """Wait until a file was written to (True) or it is time for a scan or a poll (False)."""
        now = clock()
        until = self._pace.next_scan(wanted=follower.scan_wanted)
        if follower.needs_polling:
            until = min(until, now + (POLL_SECONDS if now < self._active_until else IDLE_POLL_SECONDS))
        timeout = max(min(until, self._end_at) - now, TRICKLE_SECONDS)
        if notifier is None:
            await asyncio.sleep(timeout)
            return False
        try:
            async with asyncio.timeout(timeout):
                await readable(notifier.fd)
        except TimeoutError:
            return False
        return True

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Note that these positions are durable: rotated files read up to them may be released."""
        if self._follower is not None:
            self._follower.committed(marks(positions))

    def forgotten(self) -> list[str]:
        """Keys of files that will not return."""
        return [] if self._follower is None else self._follower.forgotten()

    def stop(self) -> list[Block]:
        """Nothing: this source keeps no block back."""
        return []

    def health(self) -> Mapping[str, str]:
        """Whether the file system answers. A file that cannot be read holds up no other: see `unreadable`."""
        seconds = self._hanging.seconds
        return {"files": f"no answer from the file system for {seconds:.0f} s"} if seconds else {}

    def unreadable(self) -> Mapping[str, str]:
        """Files and directories that cannot be read, and why; they are tried again."""
        return {} if self._follower is None else self._follower.unreadable()

    def lag_bytes(self) -> int:
        """Bytes in the followed files that are not committed yet."""
        return 0 if self._follower is None else self._follower.lag_bytes()

    def files(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """The files that have most left to read, and how many others are followed."""
        return ([], 0) if self._follower is None else self._follower.files(most)


def marks(positions: Mapping[str, Position]) -> dict[str, Mark]:
    """The marks in positions of files; an invalid value becomes an invalid mark."""
    return {key: Mark.decode(each.value) or Mark(0) for key, each in positions.items() if each.source == FILE}


def _close(follower: Follower, notifier: Inotify | None) -> None:
    follower.close()
    if notifier is not None:
        notifier.close()
