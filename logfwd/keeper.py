"""Keeps one original stream's pipeline running: after a failure it is built again from its spool.

Pipelines are independent: while one backs off, the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from logfwd.changes import Group
from logfwd.clocks import clock
from logfwd.links.backoff import Backoff
from logfwd.pipeline import Pipeline
from streams.errors import SpoolError

HEALTHY_SECONDS = 60.0
"""A stream that ran this long before it failed is restarted without a long pause."""

log = structlog.get_logger("logfwd")


class Keeper:
    """Keeps one stream's pipeline running. `trouble` is why it does not run at the moment, if it does not."""

    def __init__(
        self,
        group: Group,
        make: Callable[[Group], contextlib.AbstractAsyncContextManager[Pipeline]],
        on_finished: Callable[[], None],
    ) -> None:
        self.name = group[0].name
        self.pipeline: Pipeline | None = None
        self.trouble = ""
        self.finished = False
        self._group, self._make, self._on_finished = group, make, on_finished
        self._task = asyncio.create_task(self._keep(), name=f"stream {self.name}")
        self._stopping = asyncio.Event()

    async def _keep(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            started_at = clock()
            try:
                async with self._make(self._group) as self.pipeline:
                    self.trouble = ""
                    if self._stopping.is_set():  # while the spool was opened
                        self.pipeline.stop_reading()
                    await self.pipeline.run()
                break
            except SpoolError as error:
                self.trouble = str(error)
                log.error("stream restarting", stream=self.name, reason=self.trouble)
            except Exception as error:  # the top of a task: other streams must go on
                self.trouble = f"{type(error).__name__}: {error}"
                log.exception("stream restarting", stream=self.name, reason=self.trouble)
            finally:
                self.pipeline = None
            if clock() - started_at > HEALTHY_SECONDS:
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._stopping.wait()
        if not self._stopping.is_set():
            self.finished = True
            self._on_finished()

    def troubles(self) -> dict[str, str]:
        """Why the stream does not work, if it does not: itself by its name, parts of its source as NAME/PART."""
        if self.trouble:
            return {self.name: self.trouble}
        parts = {} if self.pipeline is None else self.pipeline.troubles()
        return {f"{self.name}/{part}": reason for part, reason in parts.items()}

    async def stop(self, grace_seconds: float) -> None:
        """Seal, drain for at most `grace_seconds`, end; batches that are not acknowledged stay in the spool."""
        self._stopping.set()
        if self.pipeline is not None:
            self.pipeline.stop_reading()
        done, _ = await asyncio.wait({self._task}, timeout=grace_seconds)
        if not done:
            senders = self.pipeline.senders if self.pipeline is not None else []
            if any(sender.backlog.waiting_batches for sender in senders):
                log.warning("batches left in spool", stream=self.name)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
