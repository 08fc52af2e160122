"""A stream's part of the http source: the blocks that its clients' requests became."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from logfwd.sources.front import Handle
from logfwd.sources.position import Block, Position


class Requests:
    """Requests of one stream, for one pipeline. Listeners and clients are elsewhere: they outlive it."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        """The blocks of all requests, in the order in which they were handed over."""
        return self._handle.blocks()

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Nothing to do: receipts answer the clients."""

    def forgotten(self) -> list[str]:
        """No positions, so none to forget."""
        return []

    def stop(self) -> list[Block]:
        """The blocks that were handed over and not begun with; nothing more is taken."""
        return self._handle.stop()

    def health(self) -> Mapping[str, str]:
        """Nothing: an address that cannot be used is the listener's trouble."""
        return {}

    def lag_bytes(self) -> int:
        """Bytes of requests that are not answered yet."""
        return self._handle.lag_bytes
