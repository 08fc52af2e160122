"""Messages of one stream between its listeners and its pipeline. Outlives pipelines, as the listeners do.

What is put in is kept until it is durable (uncommitted.py), and bounded: by the stream's `max_buffer_bytes`, and by the
front's budget, which all streams share. Beyond that nothing is taken: what then becomes of a message is the listener's
business. Large messages are parsed only when the pipeline asks for them, on a thread (aside.py).
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from logfwd.sources.aside import Work, at_once
from logfwd.sources.front import Front, Handle
from logfwd.sources.position import SYSLOG, Block, Position
from logfwd.sources.syslog.message import to_json
from logfwd.sources.uncommitted import Uncommitted
from streams.config.units import KIB, MIB
from streams.errors import NoRoom

KEY = "syslog"
"""Under which the spool stores how much of the input is durable."""

LARGE_BYTES = 8 * KIB
"""To parse a message of this size may take as much time as a hundred others."""
ROOM_CHECK_SECONDS = 0.05
_NO_FIELDS: Mapping[str, Any] = {}


def inbox_of(front: Front, stream: str) -> Inbox:
    """A stream's inbox: one for as long as the forwarder runs."""
    return front.keep(f"syslog {stream}", lambda: Inbox(front))


class AsItIs(bytes):
    """What is not a syslog message."""

    __slots__ = ()


class Large:
    """A large message, still to be parsed."""

    def __init__(self, message: bytes, now: float, local: bool, defaults: Mapping[str, Any]) -> None:
        self._message, self._now, self._local, self._defaults = message, now, local, defaults

    def __len__(self) -> int:
        return len(self._message)

    def parsed(self) -> bytes:
        """Its record."""
        return _record(self._message, self._now, self._local, self._defaults)


def _record(message: bytes, now: float, local: bool, defaults: Mapping[str, Any]) -> bytes:
    record = to_json(message, now, local=local, defaults=defaults)
    return AsItIs(message) if record is None else record


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
        make = [Large if len(message) > LARGE_BYTES else _record for message in messages]
        self.values: Sequence[bytes | Large] = [
            each(message, now, local, defaults) if parse else AsItIs(message)
            for each, message in zip(make, messages, strict=True)
        ]
        self.byte_count = sum(map(len, self.values)) + len(self.values)


class Inbox:
    """`max_bytes`: what it may hold of records that are not durable."""

    def __init__(self, front: Front, *, max_bytes: int = MIB) -> None:
        self._front = front
        self.max_bytes = max_bytes
        self.fields = b""
        """Members of a JSON object that records get which are not syslog messages; the others have them already."""
        self._waiting: deque[bytes | Large] = deque()
        self._uncommitted = Uncommitted(KEY, SYSLOG)
        self._reserved = self._waiting_bytes = self._offset = self._large = 0
        self._is_full = False
        self._arrived, self._has_room = asyncio.Event(), asyncio.Event()

    # -- for listeners -----------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """False if messages of this size need not be parsed: something was refused, and nothing was let go of since."""
        return not self._is_full and self._front.has_room(size)

    def put(self, records: Records) -> bool:
        """Take these, all or none; False if there is no room. An empty inbox takes whatever comes at once."""
        self._is_full = bool(self._reserved) and self._reserved + records.byte_count > self.max_bytes
        if self._is_full:
            return False
        try:
            self._front.reserve(records.byte_count)
        except NoRoom:
            return False
        self._reserved += records.byte_count
        self._waiting += records.values
        self._waiting_bytes += records.byte_count
        self._large += sum(isinstance(each, Large) for each in records.values)
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
            if large := self._large_ones(block_bytes):
                self._replace(large, await self._front.aside.run(_parsed(list(large.values()))))
            if not self._gather(block_bytes):
                await self._arrived.wait()

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of what is durable."""
        self._uncommitted.committed(positions)
        self._settle()

    def rest(self, block_bytes: int) -> Iterator[Block]:
        """Everything that was put in and that `blocks` has not given yet; large messages are parsed one by one."""
        yield from self._uncommitted.rest()
        while self._waiting:
            size = LARGE_BYTES if self._large else block_bytes
            if large := self._large_ones(size):
                self._replace(large, at_once(_parsed(list(large.values()))))
            self._gather(size)
            yield from self._uncommitted.rest()

    def lag_bytes(self) -> int:
        """Bytes of records that are not durable."""
        return self._reserved

    def _large_ones(self, block_bytes: int) -> dict[int, Large]:
        """Those that belong to the next block, by their places."""
        found, size = dict[int, Large](), 0
        for place, record in enumerate(self._waiting if self._large else ()):
            if size and size + len(record) >= block_bytes:
                break
            size += len(record) + 1
            if isinstance(record, Large):
                found[place] = record
        return found

    def _replace(self, large: Mapping[int, Large], records: Sequence[bytes]) -> None:
        """They are parsed; what one has grown by was not reserved, and there is no more of it than of a block."""
        for place, record in zip(large, records, strict=True):
            self._waiting[place] = record
        grown = sum(map(len, records)) - sum(map(len, large.values()))
        self._large -= len(large)
        self._waiting_bytes += grown
        self._reserved += grown
        self._front.recount(grown)

    def _gather(self, block_bytes: int) -> bool:
        """Make one block of what waits; False if nothing does."""
        records, size = list[bytes](), 0
        kind = type(self._waiting[0]) if self._waiting else bytes
        while self._waiting and (not size or size + len(self._waiting[0]) < block_bytes):
            record = self._waiting[0]
            if isinstance(record, Large) or (type(record) is not kind and self.fields):
                break
            records.append(record)
            self._waiting.popleft()
            size += len(record) + 1
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
        self._front.recount(held - self._reserved)
        self._is_full = self._is_full and held >= self._reserved
        self._reserved = held
        self._has_room.set()


def _parsed(large: Sequence[Large]) -> Work[list[bytes]]:
    records = []
    for each in large:
        records.append(each.parsed())
        yield
    return records


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

    def stop(self) -> Iterator[Block]:
        """The messages that were taken and not handed over."""
        return self._inbox.rest(self._block_bytes)

    def health(self) -> Mapping[str, str]:
        """Nothing: an address that cannot be used is the listener's trouble."""
        return {}

    def lag_bytes(self) -> int:
        """Bytes of messages that were taken and are not durable."""
        return self._inbox.lag_bytes()
