"""Blocks of lines → drafts of batches: when a batch is full, or due. No I/O, no clock: time is an argument.

A draft keeps the stream's limits unless a single line is over them alone. Blocks are cut only where they must be, at
newlines, and their order is kept: the blocks of all drafts, joined, are the blocks that were added. Lines are never
touched one by one: newlines are counted and searched for at C speed. A block that fits is passed on uncopied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from logfwd.sources import Block, Mark
from streams.definition import BatchLimits

TAIL_BYTES = 1024
TAIL_HASH_BYTES = 16


@dataclass(slots=True)
class Draft:
    """The blocks of one batch to be, in order."""

    blocks: list[Block] = field(default_factory=list)
    record_count: int = 0
    byte_count: int = 0

    @property
    def oldest_read_at_ms(self) -> int:
        """When the first block was read, wall clock."""
        return self.blocks[0].read_at_ms

    def positions(self) -> dict[str, Mark]:
        """For each key, where its source goes on after this draft. Sources without positions have none here."""
        last = {block.key: block for block in self.blocks if block.key}
        return {key: mark_after(block) for key, block in last.items()}

    def append(self, block: Block, record_count: int) -> None:
        self.blocks.append(block)
        self.record_count += record_count
        self.byte_count += len(block.data)


def tail_hash(tail: bytes) -> bytes:
    """The hash by which a source knows the bytes before its position again (BLAKE2b, 16 bytes)."""
    return blake2b(tail, digest_size=TAIL_HASH_BYTES).digest()


def mark_after(block: Block) -> Mark:
    """The position behind a block; an added newline is not part of the file, so not of the tail."""
    length = min(block.end - block.start, len(block.data))
    tail = block.data[max(length - TAIL_BYTES, 0) : length]
    return Mark(block.end, len(tail), tail_hash(tail) if tail else b"", block.detail)


FULL_SHARE = 16
"""A draft with less than this part of its bytes left is full: topping it up would cut, and so copy, every block."""


class Batcher:
    """Gathers blocks; `add` gives back the drafts that became full, `due` the one that waited for `linger_seconds`."""

    def __init__(self, limits: BatchLimits) -> None:
        self._max_records = limits.max_batch_records
        self._max_bytes = limits.max_batch_bytes
        self._full_bytes = self._max_bytes - self._max_bytes // FULL_SHARE
        self._linger_seconds = limits.linger_seconds
        self._open = Draft()
        self._deadline: float | None = None

    def add(self, block: Block, now: float) -> list[Draft]:
        """Take a block that ends in a newline (or holds nothing but a position); gives back what is full, in order."""
        full: list[Draft] = []
        begin, records = 0, block.data.count(b"\n")
        while (size := len(block.data) - begin) or not block.data:
            if self._fits(size, records):
                self._append(_piece(block, begin, len(block.data)), records, now)
                break
            end, taken = self._cut(block.data, begin)
            if end > begin:
                self._append(_piece(block, begin, end), taken, now)
                begin, records = end, records - taken
            full.append(self._take())
        if self._open.byte_count >= self._full_bytes or self._open.record_count >= self._max_records:
            full.append(self._take())
        return full

    def deadline(self) -> float | None:
        """When the open draft is due; None while there is none."""
        return self._deadline

    def due(self, now: float) -> Draft | None:
        """The open draft, if it has waited long enough."""
        return self._take() if self._deadline is not None and now >= self._deadline else None

    def flush(self) -> Draft | None:
        """The open draft, due or not."""
        return self._take() if self._open.blocks else None

    def _fits(self, size: int, records: int) -> bool:
        return (
            self._open.byte_count + size <= self._max_bytes and self._open.record_count + records <= self._max_records
        )

    def _cut(self, data: bytes, begin: int) -> tuple[int, int]:
        """End of what still fits the open draft, and its number of lines; at least one line if the draft is empty."""
        end = data.rfind(b"\n", begin, begin + self._max_bytes - self._open.byte_count) + 1
        if end == 0 and not self._open.blocks:
            end = data.index(b"\n", begin) + 1
        room = self._max_records - self._open.record_count
        if (records := data.count(b"\n", begin, end)) > room:
            return _after_newline(data, begin, end, room), room
        return max(end, begin), records

    def _append(self, block: Block, records: int, now: float) -> None:
        if self._deadline is None:
            self._deadline = now + self._linger_seconds
        self._open.append(block, records)

    def _take(self) -> Draft:
        draft, self._open, self._deadline = self._open, Draft(), None
        return draft


def _piece(block: Block, begin: int, end: int) -> Block:
    """Bytes begin…end of a block, as a block; the last piece ends where the block does in its file."""
    if begin == 0 and end == len(block.data):
        return block
    file_end = block.end if end == len(block.data) else block.start + end
    return Block(block.data[begin:end], block.read_at_ms, block.key, block.start + begin, file_end, block.detail)


def _after_newline(data: bytes, begin: int, end: int, nth: int) -> int:
    """The offset behind the nth newline of data[begin:end]: halving, so every byte is counted about once."""
    low, high = begin, end
    while high - low > 1:
        middle = (low + high) // 2
        if (below := data.count(b"\n", low, middle)) >= nth:
            high = middle
        else:
            low, nth = middle, nth - below
    return high
