"""Blocks of records → drafts of batches: when a batch is full, or due. No I/O, no clock: time is an argument.

A draft stays within the stream's limit of bytes unless a single record, or a block that must not be cut, exceeds it
alone; the limit of records is enforced where they are parsed (seal.py). Blocks are cut only where they must be, after a
record: at a newline, or where the block says. Order is kept: the blocks of all drafts, joined, are the blocks that were
added. A block that fits is passed on without a copy or a look. Once one of a series of full blocks was cut, what is
left of it is a draft of its own, so that the next ones fit again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from msgspec import structs

from logfwd.definition import BatchLimits
from logfwd.sources.position import Block, Position, position_after


@dataclass(slots=True)
class Draft:
    """The blocks of a future batch, in order."""

    blocks: list[Block] = field(default_factory=list)
    byte_count: int = 0
    is_awaited: bool = False
    """True if a block has a receipt: somebody waits for it."""

    @property
    def oldest_read_at_ms(self) -> int:
        """When the first block was read, wall clock."""
        return self.blocks[0].read_at_ms

    def positions(self) -> dict[str, Position]:
        """For each key, where its source goes on after this draft. Sources without positions have none here."""
        last: dict[str, Block | Position] = {}
        for block in self.blocks:
            if block.key:
                last[block.key] = block
            if block.positions is not None and block.receipt is None:
                last |= block.positions
        return {key: position_after(at) if isinstance(at, Block) else at for key, at in last.items()}

    def awaited(self) -> list[tuple[int, Block]]:
        """The blocks that have a receipt, without their bytes, and the place of each among the draft's blocks."""
        if not self.is_awaited:
            return []
        return [
            (index, structs.replace(each, data=b"", ends=None))
            for index, each in enumerate(self.blocks)
            if each.receipt is not None
        ]

    def drain(self) -> Iterator[Block]:
        """The blocks, in order; each is released here before the next one is taken."""
        while self.blocks:
            yield self.blocks.pop(0)

    def append(self, block: Block) -> None:
        self.blocks.append(block)
        self.byte_count += len(block.data)
        if block.receipt is not None:
            self.is_awaited = True


FULL_SHARE = 16
"""A draft with less than 1/16 of its bytes left is full: topping it up would cut, and so copy, every block."""


BURST_PAUSE_SECONDS = 0.02
"""How long a half-full draft waits for the next block: the end of a burst need not wait for its linger."""

EARLY_SECONDS = 0.1
"""A draft is sealed before its own linger only this long after the one before: so at most ten a second are."""


class Batcher:
    """Gathers blocks. `add` returns the drafts that became full, `due` the one that has waited long enough.

    A draft that begins when nothing was sealed for `linger_seconds` is due at once: a lone record does not linger. What
    follows gathers until the linger since that seal is over, so there are hardly more batches than if each lingered.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._max_bytes = limits.max_batch_bytes
        self._full_bytes = self._max_bytes - self._max_bytes // FULL_SHARE
        self._linger_seconds = limits.linger_seconds
        self._open = Draft()
        self._has_cut = False  # the block before this one, which was full by itself
        self._quiet_seconds = max(self._linger_seconds, EARLY_SECONDS)
        self._taken_at = -inf
        self._linger_ends = 0.0
        self._deadline: float | None = None

    def add(self, block: Block, now: float) -> list[Draft]:
        """Add a block (which may hold only a position); returns the drafts that are now full."""
        full: list[Draft] = []
        begin = 0
        if block.is_whole and self._open.blocks and self._open.byte_count + len(block.data) > self._max_bytes:
            full.append(self._take(now))
        is_full = self._full_bytes <= len(block.data) <= self._max_bytes
        if is_full and self._has_cut and self._open.blocks:
            full.append(self._take(now))  # else every full block from here on would be cut, and so copied
        self._has_cut = False
        while (size := len(block.data) - begin) or not block.data:
            if self._open.byte_count + size <= self._max_bytes or block.is_whole:
                self._append(_piece(block, begin, len(block.data)), now)
                break
            end = self._cut(block, begin)
            if end > begin:
                self._append(_piece(block, begin, end), now)
                begin, self._has_cut = end, is_full
            full.append(self._take(now))
        if self._open.byte_count >= self._full_bytes:
            full.append(self._take(now))
        return full

    @property
    def is_awaited(self) -> bool:
        """True if somebody waits for the open draft: it should be sealed as soon as that costs others nothing."""
        return self._open.is_awaited

    def deadline(self) -> float | None:
        """When the open draft is due; None while there is none."""
        return self._deadline

    def due(self, now: float) -> Draft | None:
        """The open draft, if it has waited long enough."""
        return self._take(now) if self._deadline is not None and now >= self._deadline else None

    def flush(self, now: float) -> Draft | None:
        """The open draft, due or not."""
        return self._take(now) if self._open.blocks else None

    def _cut(self, block: Block, begin: int) -> int:
        """Where to cut so that the open draft still fits; after at least one record if the draft is empty."""
        data, ends, room_ends = block.data, block.ends, begin + self._max_bytes - self._open.byte_count
        if ends is not None:
            fitting = bisect_right(ends, room_ends)
            if fitting == bisect_right(ends, begin) and not self._open.blocks:
                return ends[fitting]
            return max(ends[fitting - 1], begin) if fitting else begin
        end = data.rfind(b"\n", begin, room_ends) + 1
        if end == 0 and not self._open.blocks:
            end = data.index(b"\n", begin) + 1
        return max(end, begin)

    def _append(self, block: Block, now: float) -> None:
        if self._deadline is None:
            self._linger_ends = min(now + self._linger_seconds, max(now, self._taken_at + self._quiet_seconds))
        self._open.append(block)
        is_burst = self._open.byte_count >= self._max_bytes // 2
        self._deadline = min(self._linger_ends, now + BURST_PAUSE_SECONDS) if is_burst else self._linger_ends

    def _take(self, now: float) -> Draft:
        draft, self._open, self._deadline, self._taken_at = self._open, Draft(), None, now
        return draft


def _piece(block: Block, begin: int, end: int) -> Block:
    """Bytes begin…end of a block, as a block; the last piece ends where the block does in its file."""
    if begin == 0 and end == len(block.data):
        return block
    file_end = block.end if end == len(block.data) else block.start + end
    ends = block.ends
    if ends is not None:
        first = bisect_right(ends, begin) if begin else 0
        ends = array(ends.typecode, [each - begin for each in ends[first : bisect_right(ends, end)]])
    data, start = block.data[begin:end], block.start + begin
    return Block(
        data,
        block.read_at_ms,
        block.key,
        start,
        file_end,
        block.detail,
        ends,
        source=block.source,
        fields=block.fields,
        is_checked=block.is_checked,
    )
