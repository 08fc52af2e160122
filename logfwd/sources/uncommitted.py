"""Blocks of an input that cannot be read again, kept until their positions are durable.

The next pipeline gets those that are not: so a commit that failed loses nothing, and one whose outcome is unknown
repeats nothing. A position is how many bytes of this process's input are durable. Decides; does no I/O.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping

from msgspec import structs

from logfwd.sources.position import Block, Mark, Position


class Uncommitted:
    """`key`: under which the spool stores how much of the input is durable. `source`: the kind of source."""

    def __init__(self, key: str, source: str) -> None:
        self._key, self._source = key, source
        self.session = os.urandom(8)
        """Distinguishes this process's positions from those of an earlier one, which read other input."""
        self._blocks: deque[Block] = deque()
        self._handed_over = 0
        """How many of these the present pipeline has."""
        self.byte_count = 0
        """Bytes of the input that are not durable."""

    def append(self, block: Block) -> None:
        """A block that begins where the last one ends. Its position names `session` as its detail."""
        self._blocks.append(block)
        self.byte_count += block.end - block.start

    def restart(self, positions: Mapping[str, Position]) -> None:
        """A new pipeline: from here on, give it everything that is not durable, also the rest of a block."""
        self.committed(positions)
        offset = self._committed_offset(positions)
        if self._blocks and self._blocks[0].start < offset:
            before = self._blocks[0]
            self._blocks[0] = _rest(before, offset)
            self.byte_count -= offset - before.start
        self._handed_over = 0

    def next(self) -> Block | None:
        """The next block for this pipeline, if there is one."""
        if self._handed_over == len(self._blocks):
            return None
        self._handed_over += 1
        return self._blocks[self._handed_over - 1]

    def rest(self) -> list[Block]:
        """All blocks that this pipeline has not got yet."""
        rest = list(self._blocks)[self._handed_over :]
        self._handed_over = len(self._blocks)
        return rest

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of the blocks that are durable as a whole."""
        offset = self._committed_offset(positions)
        while self._blocks and self._blocks[0].end <= offset:
            block = self._blocks.popleft()
            self.byte_count -= block.end - block.start
            self._handed_over = max(self._handed_over - 1, 0)

    def _committed_offset(self, positions: Mapping[str, Position]) -> int:
        position = positions.get(self._key)
        mark = Mark.decode(position.value) if position is not None and position.source == self._source else None
        return mark.offset if mark is not None and mark.detail == self.session else 0


def _rest(block: Block, offset: int) -> Block:
    cut, ends = offset - block.start, block.ends
    if ends is not None:
        ends = array(ends.typecode, [end - cut for end in ends[bisect_right(ends, cut) :]])
    return structs.replace(block, data=block.data[cut:], start=offset, ends=ends)
