"""What a source promises: whole lines, in order, and a mark that tells where to go on after them.

A source hands over *blocks*. It keeps nothing: after a restart it is given the marks that were committed together
with the records, and goes on exactly there. What it handed over and was not committed, it hands over again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import msgspec


class Mark(msgspec.Struct, frozen=True):
    """Where a source goes on. Committed in the same transaction as the records before it.

    `tail_bytes` and `tail_hash` describe the last bytes before `offset`, so that a file which was replaced in place
    is recognised. `detail` is the source's own, opaque to everyone else (msgpack).
    """

    offset: int
    tail_bytes: int = 0
    tail_hash: bytes = b""
    detail: bytes = b""


class Block(msgspec.Struct, frozen=True):
    """Whole lines of one source, each ended by a newline, and the position of their first and last byte.

    `end − start` differs from `len(data)` only where a newline was added to an unfinished last line.
    `key` names the position in the spool ("" where a source has none, such as stdin).
    """

    data: bytes
    read_at_ms: int
    key: str = ""
    start: int = 0
    end: int = 0
    detail: bytes = b""


class Source(Protocol):
    """Yields blocks until it is exhausted (stdin) or closed (files)."""

    def blocks(self, positions: Mapping[str, Mark]) -> AsyncGenerator[Block, None]:
        """Blocks of at most the configured size, in order for each key; the caller's pace is the source's pace."""

    def committed(self, positions: Mapping[str, Mark]) -> None:
        """These positions are durable. A file source may let go of a rotated file only after this."""

    def forgotten(self) -> list[str]:
        """Keys of positions that are of no use any more: files gone for good. Clears the list."""

    def lag_bytes(self) -> int:
        """Bytes known to be readable and not yet committed."""

    def exhausted(self) -> bool:
        """True when nothing more will come."""
