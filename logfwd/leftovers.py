"""Streams that were removed: what waits in their spools is sent all the same, also after a restart.

Each spool keeps the definition that its stream had: mode, topic, receivers of its own, twins. The source is not read
any more. A spool that is empty stays: its positions are where the stream goes on if it comes back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from logfwd.changes import Group
from logfwd.definition import Stream
from logfwd.sources.position import Block, Position
from logfwd.spool import remains
from streams.decoding import MALFORMED
from streams.errors import SpoolError


class Leftover(NamedTuple):
    """A spool without a configured stream. `group` is None if nothing waits, or if it does not say how to send it."""

    name: str
    path: Path
    group: Group | None
    batches: int = 0
    is_empty: bool = False
    """Neither batches nor dead letters, of its twins neither: it only keeps positions."""


class Ended:
    """The source of a stream that was removed: it gives nothing, and leaves its positions as they are."""

    async def blocks(self, _: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        nothing: tuple[Block, ...] = ()
        for block in nothing:
            yield block

    def committed(self, _: Mapping[str, Position]) -> None:
        return

    def forgotten(self) -> list[str]:
        return []

    def stop(self) -> list[Block]:
        return []

    def health(self) -> Mapping[str, str]:
        return {}

    def lag_bytes(self) -> int:
        return 0


def leftovers(state_dir: Path, configured: Collection[str]) -> Iterator[Leftover]:
    """The spools of streams that are not configured. Reads files."""
    for path in sorted(state_dir.glob("*.spool")):
        if path.stem not in configured:
            yield _look_into(path)


def _look_into(path: Path) -> Leftover:
    nothing = Leftover(path.stem, path, None)
    with contextlib.suppress(SpoolError, OSError, *MALFORMED):
        parts = remains.in_file(path)
        if not any(part.batches or part.dead_letters for part in parts):
            return nothing._replace(is_empty=True)
        batches = sum(part.batches for part in parts if part.is_original)
        definition = remains.definition_in(path)
        if batches and definition:
            original, *twins = msgspec.json.decode(
                definition, type=tuple[Stream, ...], dec_hook=lambda kind, text: kind(text)
            )
            return Leftover(path.stem, path, (original, tuple(twins)), batches)
    return nothing
