"""The front: where the requests of clients wait for a pipeline, and where their answers come from.

There is one per forwarder. It outlives pipelines, so that a listener, and a client that waits, live through the restart
or reload of a stream. A pipeline gets a `Handle` for its own life; sources of requests are built on it.

    admission   the stream is served, and room for the request is reserved before anything of it is kept: bytes in
                memory, and what the spool may still take. Else NotServed or NoRoom: nothing is stored, try again
    hand-over   the request's blocks, in order. From here on only its outcome answers; a client that leaves changes
                nothing
    a key       of a request says which part of it is durable, from an earlier attempt, so that the rest alone is taken
    outcome     DONE: all of it is durable. FAILED: nothing of it is stored. UNKNOWN: it may be, in whole or in part
    the end     of a pipeline, whatever its reason: a request that it has not begun with is FAILED, every other one that
                it has not answered is UNKNOWN

Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from msgspec import structs

from logfwd.sources.aside import Aside
from logfwd.sources.keys import Key
from logfwd.sources.position import Block
from logfwd.sources.turns import Turns
from streams.config.units import MIB
from streams.errors import NoRoom, NotServed, PipelineError

MAX_BYTES = 64 * MIB
"""What the requests of all streams together may hold in memory."""

T = TypeVar("T")


class Outcome(enum.Enum):
    """What became of a request."""

    DONE = "all of it is durable in the spool"
    FAILED = "nothing of it is stored"
    UNKNOWN = "it may be stored, in whole or in part"


class Request:
    """A request that was handed over: the receipt of all its blocks."""

    def __init__(self, blocks: int, on_end: Callable[[Request], None]) -> None:
        self._unanswered, self._on_end = blocks, on_end
        self._heard: set[Outcome] = set()
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not blocks:
            self._end()

    async def outcome(self) -> Outcome:
        """Wait until every block is answered."""
        return await asyncio.shield(self._outcome)

    def done(self) -> None:
        self._hear(Outcome.DONE)

    def failed(self, error: PipelineError) -> None:
        self._hear(Outcome.FAILED)

    def unknown(self) -> None:
        self._hear(Outcome.UNKNOWN)

    @property
    def is_answered(self) -> bool:
        return self._outcome.done()

    def give_up(self) -> None:
        """The pipeline has ended: blocks that are not answered never will be."""
        while not self._outcome.done():
            self.unknown()

    def _hear(self, outcome: Outcome) -> None:
        self._heard.add(outcome)
        self._unanswered -= 1
        if not self._unanswered:
            self._end()

    def _end(self) -> None:
        one = self._heard or {Outcome.DONE}
        self._outcome.set_result(one.pop() if len(one) == 1 else Outcome.UNKNOWN)
        self._on_end(self)


class Admission:
    """Room that is reserved for one request. `with`: what was not handed over is given back."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.size = 0

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def grow(self, size: int) -> None:
        """Reserve more, as a body comes in whose length is not known before; raises NotAdmitted."""
        self._handle.reserve(size)
        self.size += size

    def release(self) -> None:
        """Give the room back."""
        self._handle.give_back(self.size)
        self.size = 0

    def keyed(self, key: bytes) -> contextlib.AbstractAsyncContextManager[Key | None]:
        """As `Handle.keyed`."""
        return self._handle.keyed(key)

    def hand_over(self, blocks: Sequence[Block], key: bytes | None = None) -> Request:
        """Give the request's blocks to the pipeline; raises NotAdmitted, and then none of them was given.

        `key`: the hash of its idempotency key; hand it over within `Handle.keyed`.
        """
        self.grow(max(sum(len(block.data) for block in blocks) - self.size, 0))
        size, self.size = self.size, 0
        return self._handle.take(blocks, size, key)


FindKey = Callable[[bytes], Awaitable[Key | None]]


async def _no_key(_: bytes) -> None:
    return None


class _Keyed(msgspec.Struct):
    """An idempotency key that clients use now."""

    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    users: int = 0
    request: Request | None = None


class Handle:
    """One pipeline's part of the front: the requests of its stream, from its start to its end."""

    def __init__(self, front: Front, stream: str) -> None:
        self.front, self.stream = front, stream
        self._room: Callable[[], float] | None = None
        self._find_key: FindKey = _no_key
        self._reserved = 0
        self._queue: deque[Block] = deque()
        self._requests: set[Request] = set()
        self._arrived = asyncio.Event()
        self._keyed: dict[bytes, _Keyed] = {}
        self.lag_bytes = 0
        """Bytes that were handed over and are not answered yet."""

    # -- for listeners -----------------------------------------------------------------------------------------

    def admit(self, size: int) -> Admission:
        """Reserve room for a request of which `size` bytes are known to come; raises NotAdmitted."""
        admission = Admission(self)
        admission.grow(size)
        return admission

    def reserve(self, size: int) -> None:
        """Take room, in memory and in the spool; raises NotAdmitted."""
        if self._room is None:
            raise NotServed(f"stream {self.stream!r} is starting or stopping; try again later")
        if size > self._room() - self._reserved:
            raise NoRoom(f"the spool of stream {self.stream!r} is full; try again later")
        self.front.reserve(size)
        self._reserved += size

    def give_back(self, size: int) -> None:
        """Free room that was reserved."""
        self._reserved -= size
        self.front.reserve(-size)

    @contextlib.asynccontextmanager
    async def keyed(self, key: bytes) -> AsyncGenerator[Key | None, None]:
        """How much of a request with this key (its hash) is durable; raises SpoolError.

        One client at a time is let in with a key, and only when no request with it is under way.
        """
        keyed = self._keyed.setdefault(key, _Keyed())
        keyed.users += 1
        try:
            async with keyed.lock:
                if keyed.request is not None:
                    await keyed.request.outcome()
                yield await self._find_key(key)
        finally:
            keyed.users -= 1
            self._forget_key(key)

    def _forget_key(self, key: bytes) -> None:
        keyed = self._keyed[key]
        if not keyed.users and (keyed.request is None or keyed.request.is_answered):
            del self._keyed[key]

    def take(self, blocks: Sequence[Block], size: int, key: bytes | None) -> Request:
        """Queue a request that has `size` bytes reserved."""
        self.lag_bytes += size
        request = Request(len(blocks), partial(self._answered, size, key))
        if blocks:
            self._requests.add(request)
            if key is not None:
                self._keyed[key].request = request
            self._queue.extend(structs.replace(block, receipt=request) for block in blocks)
            self._arrived.set()
        return request

    def _answered(self, size: int, key: bytes | None, request: Request) -> None:
        self.give_back(size)
        self.lag_bytes -= size
        self._requests.discard(request)
        if key is not None:
            self._forget_key(key)

    # -- for the pipeline and its source -------------------------------------------------------------------------

    def start(self, room: Callable[[], float], find_key: FindKey) -> None:
        """Admit requests from now on. `room` is how many bytes the spool may still take, `find_key` looks into it."""
        self._room, self._find_key = room, find_key

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks of all requests, in the order in which they were handed over. Never ends by itself."""
        while True:
            while self._queue:
                yield self._queue.popleft()
            self._arrived.clear()
            await self._arrived.wait()

    def stop(self) -> list[Block]:
        """Admit nothing more; returns the blocks that were handed over and that `blocks` has not given yet."""
        self._room = None
        rest = list(self._queue)
        self._queue.clear()
        return rest

    def close(self) -> None:
        """The pipeline has ended: answer everything that it has not."""
        self._find_key = _no_key  # the spool is gone; admission refuses what follows
        error = NotServed(f"stream {self.stream!r} stopped before this was taken")
        for block in self.stop():
            assert block.receipt is not None
            block.receipt.failed(error)
        for request in list(self._requests):
            request.give_up()


class Front:
    """All streams' requests, and things that outlive pipelines. `is_busy`: whether any stream has a batch under way."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, is_busy: Callable[[], bool] = lambda: True) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0
        self._handles: dict[str, Handle] = {}
        self._kept: dict[str, object] = {}
        self.turns, self.aside = Turns(is_busy), Aside(is_busy)
        """Which all listeners share."""

    @contextlib.contextmanager
    def open(self, stream: str) -> Iterator[Handle]:
        """A handle for the length of one pipeline of a stream."""
        handle = self._handles[stream] = Handle(self, stream)
        try:
            yield handle
        finally:
            del self._handles[stream]
            handle.close()

    def admit(self, stream: str, size: int) -> Admission:
        """Reserve room for a request to a stream; raises NotAdmitted."""
        if stream not in self._handles:
            raise NotServed(f"stream {stream!r} is not served now")
        return self._handles[stream].admit(size)

    def has_room(self, size: int) -> bool:
        """True if requests may hold so many more bytes in memory."""
        return size <= self._max_bytes - self._reserved

    def reserve(self, size: int) -> None:
        """Count bytes of requests in memory, or fewer where negative; raises NoRoom."""
        if not self.has_room(size):
            raise NoRoom("too much is waiting in the memory of this forwarder; try again later")
        self._reserved += size

    def recount(self, change: int) -> None:
        """What was taken before has become larger than what was reserved for it, or smaller."""
        self._reserved += change

    def keep(self, name: str, make: Callable[[], T]) -> T:
        """What was made under this name before, by another pipeline, or else made now."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]  # type: ignore[assignment]
        return kept
