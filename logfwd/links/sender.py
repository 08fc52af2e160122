"""Keeps one stream's link: connects, hands it to a conversation, backs off after a failure, rotates in time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog

from logfwd.clocks import clock
from logfwd.definition import Stream
from logfwd.links.backoff import MOST_SECONDS, Backoff
from logfwd.links.conversation import Conversation
from logfwd.links.delivery import Delivery
from logfwd.links.rounds import Rounds
from logfwd.spool.backlog import Backlog
from streams.errors import Code, HandshakeFailed, LinkError, LinkRefused, NotListening, PolicyViolation, ProtocolError
from streams.security.transport import Link

CLONE_PAUSE_SECONDS = 2.0
"""Pause before the next link when a forwarder with a copy of this state directory took over the last one."""

NOT_LISTENING_SECONDS = 0.9
"""The longest pause while nothing listens at a receiver's addresses: it is back at any moment."""

SHUT_OUT_SECONDS = 300.0
"""The longest pause of a forwarder that was shut out: its rights come back by somebody's hand, or never."""

Connect = Callable[[], Awaitable[Link]]
LINK_FAILURES = (LinkError, ProtocolError, ConnectionError, TimeoutError)
"""What a link may run into; anything else is a bug of ours."""


class Sender:
    """One link at a time, for as long as it runs. `wake` is set when there is something new to send."""

    def __init__(self, delivery: Delivery, connect: Connect, *, receivers: int = 1) -> None:
        """`receivers`: to how many `connect` makes links, in turn."""
        self.delivery = delivery
        self._rounds = Rounds(receivers)
        self.link: Link | None = None
        self.wake = asyncio.Event()
        delivery.wake_by(self.wake.set)
        self._connect = connect
        self._backoff = Backoff()
        self._knocking = Backoff()
        """While nothing listens."""
        self._conversation: Conversation | None = None
        self._unlinked_at = clock()
        self.rotation_failed = ""
        """Why the next link cannot be made while this one is in use; empty if none is to be made, or it was."""
        self._retry_at = 0.0
        self._next_link: asyncio.Task[Link] | None = None
        self._stopping = False
        self.log = structlog.get_logger("logfwd.sender").bind(
            stream=delivery.stream.name, mode=delivery.stream.security
        )

    @property
    def stream(self) -> Stream:
        return self.delivery.stream

    @property
    def backlog(self) -> Backlog:
        return self.delivery.backlog

    @property
    def connected(self) -> bool:
        """True while a receiver has welcomed the stream."""
        return self._conversation is not None and self._conversation.welcomed

    @property
    def unacknowledged(self) -> int:
        """Batches that are on the wire."""
        return 0 if self._conversation is None else self._conversation.unacknowledged

    @property
    def unanswered_seconds(self) -> float:
        """How long the receiver has owed an answer; 0 if it owes none."""
        return 0.0 if self._conversation is None else self._conversation.unanswered_seconds

    @property
    def unlinked_seconds(self) -> float:
        """How long no receiver has welcomed the stream: since the last link that was of use; 0 while there is one."""
        return 0.0 if self.connected else clock() - self._unlinked_at

    def stop(self) -> None:
        """Leave the link once everything on it is answered; then `run` returns."""
        self._stopping = True
        self.wake.set()
        if self._conversation is not None:
            self._conversation.leave("the forwarder stops")

    async def use(self, connect: Connect, *, receivers: int) -> None:
        """Make links in another way from now on; one that is open is left once the next is there."""
        self._connect, self._rounds = connect, Rounds(receivers)
        self._retry_at = 0.0
        self.wake.set()
        await self._drop_next_link()
        if self._conversation is not None:
            self._rotate()

    def _is_outdated(self, connect: Connect) -> bool:
        """Whether a link that was made in this way is not to be used any more."""
        return self._stopping or connect is not self._connect

    async def run(self) -> None:
        """Keep a link until stop() is called."""
        try:
            while not self._stopping:
                try:
                    connect = self._connect
                    link = await self._new_link()
                    if self._is_outdated(connect):  # while it was made
                        await link.close()
                        continue
                    seeks_another = await self._use(link)
                    if self._next_link is None and not seeks_another:  # it was left for a reason of the receiver's
                        await self._pause(self._backoff.next())
                except LINK_FAILURES as error:
                    await self._failed(error)
        finally:
            await self._drop_next_link()

    async def _new_link(self) -> Link:
        if self._next_link is not None and self._next_link.done():
            task, self._next_link = self._next_link, None
            return await task
        await self._drop_next_link()
        return await self._connect()

    async def _use(self, link: Link) -> bool:
        """True if the link was left for another receiver, which is to be asked at once."""
        conversation = Conversation(link, self.delivery, self._rounds, self.wake, self._rotate)
        self.link, self._conversation = link, conversation
        try:
            await conversation.run()
            return conversation.seeks_another
        finally:
            if conversation.has_served:
                self._backoff.reset()
                self._knocking.reset()
            if conversation.welcomed:
                self._unlinked_at, self.rotation_failed = clock(), ""
            self.link = self._conversation = None
            self.delivery.metrics.link_closed(self.stream.name)

    async def _failed(self, error: Exception) -> None:
        reason = self._count(error)
        self._rounds.no_link()
        pause = self._pause_after(error, reason)
        self.log.warning(
            "link failed",
            reason=reason,
            detail=str(error),
            retry_in_seconds=round(pause, 2),
            waiting_batches=self.backlog.waiting_batches,
        )
        await self._pause(pause)

    def _pause_after(self, error: Exception, reason: str) -> float:
        if isinstance(error, NotListening):
            return self._knocking.next(most_seconds=NOT_LISTENING_SECONDS)
        pause = self._backoff.next(most_seconds=SHUT_OUT_SECONDS if reason == Code.REVOKED else MOST_SECONDS)
        if reason == Code.SUPERSEDED:
            pause = max(pause, random.uniform(0.5, 1.5) * CLONE_PAUSE_SECONDS)  # noqa: S311 — spreads load
        return pause

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer once the sender is to stop."""
        self._retry_at = clock() + seconds
        while not self._stopping and (left := self._retry_at - clock()) > 0:
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wake.wait()

    def _count(self, error: Exception) -> str:
        """Count a failed link; returns its reason."""
        stream, reason = self.stream, _reason(error)
        self.delivery.failed(reason, str(error))
        if isinstance(error, HandshakeFailed):
            self.delivery.metrics.failed_handshake(
                error.reason, role="forwarder", stream=stream.name, mode=stream.security
            )
        return reason

    # -- rotation ----------------------------------------------------------------------------------------------

    def _rotate(self) -> None:
        """Make the next link while this one is still in use, then leave this one."""
        if self._next_link is None:
            self.log.info("link rotating")
            self._next_link = asyncio.create_task(self._make_next_link())

    async def _make_next_link(self) -> Link:
        backoff = Backoff()
        try:
            while True:
                try:
                    link = await self._connect()
                    self.rotation_failed = ""
                    return link
                except LINK_FAILURES as error:
                    self.rotation_failed = str(error)
                    self.log.warning("link rotation failed", reason=self._count(error), detail=str(error))
                    await asyncio.sleep(backoff.next())
        finally:  # also after an error of ours, which shows when the next link is asked for
            if self._conversation is not None:
                self._conversation.leave("rotation")

    async def _drop_next_link(self) -> None:
        task, self._next_link = self._next_link, None
        if task is not None:
            task.cancel()
            (link,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(link, Link):
                link.abort()


def _reason(error: Exception) -> str:
    """A short label for a failed link."""
    if isinstance(error, HandshakeFailed):
        return f"handshake_{error.reason}"
    if isinstance(error, PolicyViolation):
        return "policy"
    if isinstance(error, ProtocolError | LinkRefused):
        return str(error.code)
    return "timeout" if isinstance(error, TimeoutError) else "disconnected"
