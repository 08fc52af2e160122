"""Messages of one stream between its listeners and its pipeline. Outlives pipelines, as the listeners do.

What is put in is kept until it is durable (uncommitted.py), and bounded: by the stream's `max_buffer_bytes`, and by the
front's budget, which all streams share. Beyond that nothing is taken: what then becomes of a message is the listener's
business.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from logfwd.sources.front import Front, Handle
from logfwd.sources.position import SYSLOG, Block, Position
from logfwd.sources.syslog.message import to_json
from logfwd.sources.uncommitted import Uncommitted
from streams.config.units import MIB
from streams.errors import NoRoom

KEY = "syslog"
"""Under which the spool stores how much of the input is durable."""


ROOM_CHECK_SECONDS = 0.05
_NO_FIELDS: Mapping[str, Any] = {}


def inbox_of(front: Front, stream: str) -> Inbox:
    """A stream's inbox: one for as long as the forwarder runs."""
    return front.keep(f"syslog {stream}", lambda: Inbox(front))


class AsItIs(bytes):
    """What is not a syslog message."""

    __slots__ = ()


class Records:
    """Messages that came together, as records: JSON, or as they are, if they are not syslog messages."""

    def __init__(
        self,
        messages: Sequence[bytes],
        *,
        local: bool = False,
        parse: bool = True,
        defaults: Mapping[str, Any] = _NO_FIELDS,
    ) -> None:
        now = time.time()
        parsed = [to_json(message, now, local=local, defaults=defaults) if parse else None for message in messages]
        self.values = [AsItIs(message) if one is None else one for one, message in zip(parsed, messages, strict=True)]
        self.byte_count = sum(map(len, self.values)) + len(self.values)


class Inbox:
    """`max_bytes`: what it may hold of records that are not durable."""

    def __init__(self, front: Front, *, max_bytes: int = MIB) -> None:
        self._front = front
        self.max_bytes = max_bytes
        self.fields = b""
        """Members of a JSON object that records get which are not syslog messages; the others have them already."""
        self._waiting: deque[bytes] = deque()
        self._uncommitted = Uncommitted(KEY, SYSLOG)
        self._reserved = self._waiting_bytes = self._offset = 0
        self._arrived, self._has_room = asyncio.Event(), asyncio.Event()

    # -- for listeners -----------------------------------------------------------------------------------------

    def put(self, records: Records) -> bool:
        """Take these, all or none; False if there is no room. An empty inbox takes whatever comes at once."""
        if self._reserved and self._reserved + records.byte_count > self.max_bytes:
            return False
        try:
            self._front.reserve(records.byte_count)
        except NoRoom:
            return False
        self._reserved += records.byte_count
        self._waiting += records.values
        self._waiting_bytes += records.byte_count
        self._arrived.set()
        return True

    async def wait_and_put(self, records: Records) -> None:
        """Take these as soon as there is room."""
        while not self.put(records):
            self._has_room.clear()
            try:
                async with asyncio.timeout(ROOM_CHECK_SECONDS):  # room in the front is not reported here
                    await self._has_room.wait()
            except TimeoutError:
                continue

    # -- for the pipeline's source -----------------------------------------------------------------------------

    async def blocks(self, positions: Mapping[str, Position], block_bytes: int) -> AsyncGenerator[Block, None]:
        """Blocks of up to `block_bytes`; first those that an earlier pipeline did not commit. Never ends by itself."""
        self._uncommitted.restart(positions)
        self._settle()
        while True:
            while (block := self._uncommitted.next()) is not None:
                yield block
            self._arrived.clear()
            if not self._gather(block_bytes):
                await self._arrived.wait()

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of what is durable."""
        self._uncommitted.committed(positions)
        self._settle()

    def rest(self, block_bytes: int) -> list[Block]:
        """Everything that was put in and that `blocks` has not given yet."""
        while self._gather(block_bytes):
            pass
        return self._uncommitted.rest()

    def lag_bytes(self) -> int:
        """Bytes of records that are not durable."""
        return self._reserved

    def _gather(self, block_bytes: int) -> bool:
        """Make one block of what waits; False if nothing does."""
        records, size = list[bytes](), 0
        kind = type(self._waiting[0]) if self._waiting else bytes
        while self._waiting and (not size or size + len(self._waiting[0]) < block_bytes):
            if type(self._waiting[0]) is not kind and self.fields:
                break
            records.append(self._waiting.popleft())
            size += len(records[-1]) + 1
        if not records:
            return False
        self._waiting_bytes -= size
        now_ms = time.time_ns() // 1_000_000
        data, ends = b"\n".join([*records, b""]), None
        if data.count(b"\n") != len(records):  # what is not a syslog message may hold newlines
            data, ends = b"".join(records), array("Q", accumulate(map(len, records)))
        start = self._offset
        self._offset += len(data)
        session = self._uncommitted.session
        fields = self.fields if kind is AsItIs else b""
        self._uncommitted.append(
            Block(data, now_ms, KEY, start, self._offset, session, ends, source=SYSLOG, fields=fields)
        )
        self._settle()
        return True

    def _settle(self) -> None:
        """Give back the room of what has become durable."""
        held = self._uncommitted.byte_count + self._waiting_bytes
        self._front.reserve(held - self._reserved)
        self._reserved = held
        self._has_room.set()


class SyslogMessages:
    """The source: a stream's inbox, for one pipeline."""

    def __init__(self, handle: Handle, block_bytes: int) -> None:
        self._inbox = inbox_of(handle.front, handle.stream)
        self._block_bytes = block_bytes

    def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """The messages in the order in which they came, from where the spool has them."""
        return self._inbox.blocks(positions, self._block_bytes)

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of what is durable."""
        self._inbox.committed(positions)

    def forgotten(self) -> list[str]:
        """The one key stays."""
        return []

    def stop(self) -> list[Block]:
        """The messages that were taken and not handed over."""
        return self._inbox.rest(self._block_bytes)

    def health(self) -> Mapping[str, str]:
        """Nothing: an address that cannot be used is the listener's trouble."""
        return {}

    def lag_bytes(self) -> int:
        """Bytes of messages that were taken and are not durable."""
        return self._inbox.lag_bytes()
