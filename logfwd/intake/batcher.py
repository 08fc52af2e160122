"""Blocks of records → drafts of batches: when a draft is full, or due. No I/O, no clock: time is an argument.

A draft is what is committed at once, with the positions after it. It leaves here in *portions*, so that its records are
compressed while the rest is gathered (seal.py). How much a batch takes is known only then; so a draft is full when it
has as many bytes as the one before it needed for a well filled batch: `max_batch_bytes` at least, and
`max_uncompressed_bytes` at most, unless a single record, or a block that must not be cut, exceeds that alone.

Blocks are cut only where they must be, after a record: at a newline, or where the block says. Order is kept: the blocks
of all portions, joined, are the blocks that were added. A block that fits is passed on without a copy or a look. Once
one of a series of full blocks was cut, what is left of it is a draft of its own, so that the next ones fit again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from math import inf

import msgspec
from msgspec import structs

from logfwd.definition import BatchLimits
from logfwd.sources.position import Block, Position, position_after
from streams.config.units import KIB


class Portion(msgspec.Struct):
    """A part of a draft: blocks, in order. Only the last one of a draft may be without."""

    blocks: list[Block] = []
    byte_count: int = 0
    is_awaited: bool = False
    """True if a block has a receipt: somebody waits for it."""
    ends_draft: bool = False
    """True for the last one of its draft."""

    @property
    def oldest_read_at_ms(self) -> int:
        """When the first block was read, wall clock."""
        return self.blocks[0].read_at_ms

    def positions(self) -> dict[str, Position]:
        """For each key, where its source goes on after this portion. Sources without positions have none here."""
        last: dict[str, Block | Position] = {}
        for block in self.blocks:
            if block.key:
                last[block.key] = block
            if block.positions is not None and block.receipt is None:
                last |= block.positions
        return {key: position_after(at) if isinstance(at, Block) else at for key, at in last.items()}

    def awaited(self) -> list[tuple[int, Block]]:
        """The blocks that have a receipt, without their bytes, and the place of each among the blocks."""
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


PORTION_BYTES = 640 * KIB
"""So much is worth a turn on a thread; a draft with less leaves here at once."""

FULL_SHARE = 16
"""A draft with less than 1/16 of its bytes left is full: topping it up would cut, and so copy, every block."""
OVER_SHARE = 8
"""A draft that is to fill a compressed batch may have 1/8 more, so that its last block is not cut: the batch is well
filled at 3/4, so there is room.
"""

BURST_PAUSE_SECONDS, CATCH_UP_SECONDS = 0.04, 0.004
"""How long a draft waits for the next block that has half, or all, of `max_batch_bytes`: the end of a burst need not
wait for its linger, but must outlast the 20 ms between two reads of a file that grows slowly; and larger drafts are for
sources that are behind, so that their next block is there at once."""

EARLY_SECONDS = 0.1
"""A draft is sealed before its own linger only this long after the one before: so at most ten a second are."""


class Batcher:
    """Gathers blocks. `add` returns portions of drafts, `due` the last one of a draft that has waited long enough.

    A draft that begins when nothing was sealed for `linger_seconds` is due at once: a lone record does not linger. What
    follows gathers until the linger since that seal is over, so there are hardly more batches than if each lingered.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._least_bytes = min(limits.max_batch_bytes, limits.max_uncompressed_bytes)
        self._max_bytes = self._next_max_bytes = self._least_bytes
        self._quiet_seconds = max(limits.linger_seconds, EARLY_SECONDS)
        self._open = Portion()
        self._passed_on_bytes = 0
        """Bytes of the open draft in earlier portions."""
        self._is_awaited = False
        self._has_cut = False  # the block before this one, which was full by itself
        self._taken_at = -inf
        self._linger_ends = 0.0
        self._deadline: float | None = None

    def add(self, block: Block, now: float) -> list[Portion]:
        """Add a block (which may hold only a position); returns what can be sealed now."""
        ready: list[Portion] = []
        begin = 0
        if block.is_whole and self._has_begun and self._byte_count + len(block.data) > self._max_bytes:
            ready.append(self._take(now))
        is_full = self._full_bytes <= len(block.data) <= self._max_bytes
        if is_full and self._has_cut and self._has_begun:
            ready.append(self._take(now))  # else every full block from here on would be cut, and so copied
        self._has_cut = False
        while (size := len(block.data) - begin) or not block.data:
            if self._byte_count + size <= self._most_bytes or block.is_whole:
                self._append(_piece(block, begin, len(block.data)), now)
                break
            end = self._cut(block, begin)
            if end > begin:
                self._append(_piece(block, begin, end), now)
                begin, self._has_cut = end, is_full
            ready.append(self._take(now))
        if self._byte_count >= self._full_bytes:
            ready.append(self._take(now))
        elif self._open.byte_count >= PORTION_BYTES:
            ready.append(self._pass_on())
        return ready

    def sealed(self, byte_count: int, batch_bytes: int) -> None:
        """Note how many bytes of batches a draft of `byte_count` became: the next ones are filled accordingly."""
        if batch_bytes:
            well_filled = self._limits.max_batch_bytes * 3 // 4
            fitting = byte_count * well_filled // batch_bytes
            self._next_max_bytes = min(max(fitting, self._least_bytes), self._limits.max_uncompressed_bytes)

    @property
    def is_awaited(self) -> bool:
        """True if somebody waits for the open draft: it should be sealed as soon as that costs others nothing."""
        return self._is_awaited

    def deadline(self) -> float | None:
        """When the open draft is due; None while there is none."""
        return self._deadline

    def due(self, now: float) -> Portion | None:
        """The end of the open draft, if that has waited long enough."""
        return self._take(now) if self._deadline is not None and now >= self._deadline else None

    def flush(self, now: float) -> Portion | None:
        """The end of the open draft, due or not."""
        return self._take(now) if self._has_begun else None

    @property
    def _has_begun(self) -> bool:
        return self._deadline is not None

    @property
    def _byte_count(self) -> int:
        return self._passed_on_bytes + self._open.byte_count

    @property
    def _most_bytes(self) -> int:
        if self._max_bytes <= self._least_bytes:
            return self._max_bytes
        return min(self._max_bytes + self._max_bytes // OVER_SHARE, self._limits.max_uncompressed_bytes)

    @property
    def _full_bytes(self) -> int:
        return self._max_bytes - self._max_bytes // FULL_SHARE

    def _cut(self, block: Block, begin: int) -> int:
        """Where to cut so that the open draft still fits; after at least one record if the draft is empty."""
        data, ends, room_ends = block.data, block.ends, begin + self._max_bytes - self._byte_count
        if ends is not None:
            fitting = bisect_right(ends, room_ends)
            if fitting == bisect_right(ends, begin) and not self._has_begun:
                return ends[fitting]
            return max(ends[fitting - 1], begin) if fitting else begin
        end = data.rfind(b"\n", begin, room_ends) + 1
        if end == 0 and not self._has_begun:
            end = data.index(b"\n", begin) + 1
        return max(end, begin)

    def _append(self, block: Block, now: float) -> None:
        linger_seconds, batch_bytes = self._limits.linger_seconds, self._least_bytes
        if self._deadline is None:
            self._linger_ends = min(now + linger_seconds, max(now, self._taken_at + self._quiet_seconds))
        self._open.append(block)
        self._is_awaited = self._is_awaited or self._open.is_awaited
        self._deadline = self._linger_ends
        if self._byte_count >= batch_bytes // 2:
            pause = BURST_PAUSE_SECONDS if self._byte_count < batch_bytes else CATCH_UP_SECONDS
            self._deadline = min(self._linger_ends, now + pause)

    def _pass_on(self) -> Portion:
        portion, self._open = self._open, Portion()
        self._passed_on_bytes += portion.byte_count
        return portion

    def _take(self, now: float) -> Portion:
        last = self._pass_on()
        last.ends_draft = True
        self._passed_on_bytes, self._is_awaited, self._deadline, self._taken_at = 0, False, None, now
        self._max_bytes = self._next_max_bytes
        return last


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
