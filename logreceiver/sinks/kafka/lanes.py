"""Which connection to one broker a batch takes, so that a stuck partition never holds up another.

A broker works on one request per connection at a time, with acks=all until it is replicated. So a few *shared*
connections each carry one request; while all are busy, batches for different partitions gather into the next. A request
with several partitions gets a short time limit, after which the broker answers for each of them alone. A partition
that was not answered within `SLOW_SECONDS` is set *apart*: it keeps, or gets, a connection of its own with the full
time limit, until an answer is quick again.

Nothing here retries. A batch whose connection could not be made is refused; one that was handed over is answered by
`send`, whatever happens. This module knows neither Kafka nor sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from logreceiver.sinks import Outcome
from streams.errors import Code, SinkUnavailable

SLOW_SECONDS = 1.0
SHARED_CONNECTIONS = 4
MAX_APART = 32
MAX_GATHERED_BYTES = 8 * 1024 * 1024
CLOSE_SECONDS = 5.0

Partition = tuple[str, int]
log = structlog.get_logger("logreceiver.kafka")


class Connection(Protocol):
    """What batches are sent on; closed by the code that finds it broken."""

    def connected(self) -> bool: ...
    def close(self) -> Any: ...


C = TypeVar("C", bound=Connection)


class Item(msgspec.Struct, eq=False):
    """One batch under way; `deadline` ends its wait for a connection."""

    partition: Partition
    batch: memoryview
    deadline: float
    answer: asyncio.Future[Outcome]

    def settle(self, outcome: Outcome) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)


class Apart(msgspec.Struct, Generic[C], eq=False):
    """A slow partition, with a connection of its own."""

    waiting: deque[Item] = msgspec.field(default_factory=deque)
    connection: C | None = None
    busy: bool = False
    outdated: bool = False
    """Whether the connection is to be replaced."""


class Round(msgspec.Struct, Generic[C], eq=False):
    """One request on a shared connection; `detached` once that connection is no longer shared."""

    items: list[Item]
    renewals: int
    """How often connections had been renewed when it began."""
    detached: bool = False


class Lanes(Generic[C]):
    """All produce connections to one broker. `send` answers every item, in order, and never raises."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        send: Callable[[C, Sequence[Item], float], Awaitable[list[Outcome]]],
        *,
        limit_seconds: float,
    ) -> None:
        self._connect = connect
        self._send = send
        self._limit_seconds = limit_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Partition, deque[Item]] = {}
        """For a shared connection; no queue is empty, and the partition that was served longest ago comes first."""
        self._apart: dict[Partition, Apart[C]] = {}
        self._idle: list[C] = []
        """Shared connections without a request; the last one was used last."""
        self._busy = 0
        """Shared connections with a request, those that are being opened included."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewals = 0
        self._closing = False

    async def submit(self, partition: Partition, batch: memoryview) -> Outcome:
        """Carry one batch; the answer comes within a few times `limit_seconds`."""
        item = Item(partition, batch, self._loop.time() + self._limit_seconds, self._loop.create_future())
        if self._closing:
            return Outcome.refused(Code.UNAVAILABLE, "the sink is closing")
        apart = self._apart.get(partition)
        if apart is not None:
            apart.waiting.append(item)
            self._drain_apart(partition, apart)
        else:
            self._waiting.setdefault(partition, deque()).append(item)
            self._pump()
        return await item.answer

    def renew(self) -> None:
        """Use new connections from now on. A request that is under way ends on the one that carries it."""
        self._renewals += 1
        while self._idle:
            self._idle.pop().close()
        for apart in self._apart.values():
            apart.outdated = True

    async def close(self) -> None:
        """Refuse waiting batches, give those under way a few seconds, close the connections."""
        self._closing = True
        for waiting in [*self._waiting.values(), *(apart.waiting for apart in self._apart.values())]:
            while waiting:
                waiting.popleft().settle(Outcome.refused(Code.UNAVAILABLE, "the sink is closing"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in [*self._idle, *(apart.connection for apart in self._apart.values())]:
            if connection is not None:
                await _closed(connection)

    # -- shared ------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start requests as long as there are shared connections and batches."""
        while self._busy < SHARED_CONNECTIONS and (items := self._gather()):
            self._busy += 1
            self._spawn(self._shared_round(Round(items, self._renewals)))

    def _gather(self) -> list[Item]:
        """The oldest batch of each waiting partition, within a request's size."""
        items: list[Item] = []
        size = 0
        for partition in list(self._waiting):
            queue = self._waiting.pop(partition)
            item = self._next(queue)
            if item is None:
                continue
            if items and size + len(item.batch) > MAX_GATHERED_BYTES:
                queue.appendleft(item)
            else:
                items.append(item)
                size += len(item.batch)
            if queue:
                self._waiting[partition] = queue  # after partitions that have waited longer
        return items

    def _next(self, queue: deque[Item]) -> Item | None:
        """The next batch whose caller still waits and whose deadline has not passed."""
        while queue:
            item = queue.popleft()
            if item.answer.done():
                continue
            if item.deadline > self._loop.time():
                return item
            item.settle(Outcome.refused(Code.UNAVAILABLE, "it waited too long for a connection"))
        return None

    async def _shared_round(self, round_: Round[C]) -> None:
        items = round_.items
        alone = len(items) == 1
        connection = None
        timer = None
        try:
            connection = self._take_idle() or await self._open(items)
            if connection is None:
                return  # `_open` has refused the items
            if alone:
                # A lone batch may take its full time, but not on a connection that others wait for.
                timer = self._loop.call_later(SLOW_SECONDS, self._detach, round_)
            outcomes = await self._exchange(connection, items, self._limit_seconds if alone else SLOW_SECONDS)
            for item, outcome in zip(items, outcomes, strict=True):
                if not alone and outcome.code is Code.TIMED_OUT:  # the broker says which of the partitions is slow
                    self._set_apart(item.partition)
        finally:
            if timer is not None:
                timer.cancel()
            self._give_back(connection, round_)
            if not round_.detached:  # else `_detach` has counted it out
                self._busy -= 1
            if not self._closing:
                self._pump()

    def _detach(self, round_: Round[C]) -> None:
        """A lone batch is slow: its connection stops being shared, so that other batches get a fresh one."""
        if self._set_apart(round_.items[0].partition) is not None:
            round_.detached = True
            self._busy -= 1
            self._pump()

    def _give_back(self, connection: C | None, round_: Round[C]) -> None:
        """To the shared ones, to the slow partition that it was detached for, or closed if nobody needs it."""
        if connection is None:
            return
        apart = self._apart.get(round_.items[0].partition) if round_.detached else None
        if not connection.connected() or round_.renewals != self._renewals:
            connection.close()
        elif not round_.detached:
            self._idle.append(connection)
        elif apart is not None and apart.connection is None and not apart.busy:
            apart.connection = connection
        else:
            connection.close()

    def _take_idle(self) -> C | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.connected():
                return connection
            connection.close()
        return None

    # -- apart -------------------------------------------------------------------------------------------------

    def _set_apart(self, partition: Partition) -> Apart[C] | None:
        """The partition's own lane, with its waiting batches; None if there are too many already."""
        apart = self._apart.get(partition)
        if apart is None and len(self._apart) >= MAX_APART:
            unused = [key for key, one in self._apart.items() if not one.busy and not one.waiting]
            for key in unused[:1]:  # it will be found again if it is still slow
                self._rejoin(key, self._apart[key])
        if apart is None and len(self._apart) < MAX_APART:
            log.warning("slow partition isolated", topic=partition[0], partition=partition[1])
            # Its waiting batches move with it, so that their order is kept.
            apart = self._apart[partition] = Apart(self._waiting.pop(partition, deque()))
            self._drain_apart(partition, apart)
        return apart

    def _drain_apart(self, partition: Partition, apart: Apart[C]) -> None:
        if apart.waiting and not apart.busy:
            apart.busy = True
            self._spawn(self._apart_rounds(partition, apart))

    async def _apart_rounds(self, partition: Partition, apart: Apart[C]) -> None:
        """Send the partition's batches one after the other; share again once the last answer was quick."""
        quick = False
        try:
            while (item := self._next(apart.waiting)) is not None:
                if apart.connection is not None and (apart.outdated or not apart.connection.connected()):
                    apart.connection.close()
                    apart.connection = None
                apart.outdated = False
                if apart.connection is None:
                    apart.connection = await self._open([item])
                if apart.connection is None:
                    continue
                started = self._loop.time()
                await self._exchange(apart.connection, [item], self._limit_seconds)
                quick = self._loop.time() - started < SLOW_SECONDS
        finally:
            apart.busy = False
        if quick and not apart.waiting:
            self._rejoin(partition, apart)

    def _rejoin(self, partition: Partition, apart: Apart[C]) -> None:
        del self._apart[partition]
        log.info("slow partition rejoined", topic=partition[0], partition=partition[1])
        if apart.connection is not None:
            apart.connection.close()

    # -- both --------------------------------------------------------------------------------------------------

    async def _open(self, items: Sequence[Item]) -> C | None:
        try:
            return await self._connect()
        except SinkUnavailable as error:
            for item in items:
                item.settle(Outcome.refused(error.code, str(error)))
            return None

    async def _exchange(self, connection: C, items: Sequence[Item], seconds: float) -> list[Outcome]:
        """Hand items over; from here on they are uncertain until answered."""
        outcomes = [Outcome.uncertain(Code.UNAVAILABLE, "the answer was not awaited")] * len(items)
        try:
            outcomes = await self._send(connection, items, seconds)
        finally:
            for item, outcome in zip(items, outcomes, strict=True):
                item.settle(outcome)
        return outcomes

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("produce request failed", exc_info=task.exception())


async def _closed(connection: Connection) -> None:
    closing = connection.close()
    if closing is not None:
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
