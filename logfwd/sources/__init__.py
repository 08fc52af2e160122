"""What a source promises: whole lines, in order, and a position at which to go on after them.

A source hands over *blocks*. It keeps nothing: after a restart it is given the positions that were committed together
with the records, and goes on exactly there. Blocks that were handed over but not committed are handed over again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Protocol

from logfwd.sources.position import Block, Position


class Source(Protocol):
    """Yields blocks until it is exhausted (stdin) or closed (files)."""

    def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """Blocks of at most the configured size, in order for each key; the caller's pace is the source's pace."""

    def committed(self, positions: Mapping[str, Position]) -> None:
        """These positions are durable. A file source may close a rotated file for good only after this."""

    def forgotten(self) -> list[str]:
        """Keys of positions that are not needed any more: files gone for good. Clears the list."""

    def stop(self) -> Iterable[Block]:
        """Take nothing more from clients; gives the blocks that were taken and not yet handed over."""

    def health(self) -> Mapping[str, str]:
        """What keeps the source from working, by part: a port that is taken, a journal that cannot be read."""

    def lag_bytes(self) -> int:
        """Bytes known to be readable and not yet committed."""
