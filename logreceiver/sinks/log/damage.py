"""What readers of the embedded log do about damage: they stop at it and say where, or are told to go on behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from streams.errors import PipelineError

log = structlog.get_logger("logreceiver.log")


class Damage(NamedTuple):
    """A place where acknowledged records are lacking or cannot be read."""

    path: Path
    """A file, or the directory that lacks one."""
    reason: str
    from_offset: int = -1
    """The first offset that cannot be read; −1 if none is known to be lacking."""
    to_offset: int = -1
    """The offset after the last of them."""
    position: int | None = None
    """In the file, in bytes."""

    def __str__(self) -> str:
        place = "" if self.position is None else f" at byte {self.position}"
        lacking = self.to_offset > self.from_offset >= 0
        which = f" (offsets {self.from_offset} to {self.to_offset - 1})" if lacking else ""
        return f"{self.path}{place}: {self.reason}{which}"


class LogDamaged(PipelineError):
    """The log cannot be read on without leaving something out; `damage` says where."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(str(damage))
        self.damage = damage


OnDamage = Callable[[Damage], None]
"""Called at each damage: raises to stop there."""


def stop(damage: Damage) -> None:
    """Raise LogDamaged."""
    raise LogDamaged(damage)


def ignore(damage: Damage) -> None:
    """For whoever finds nothing to read at all, and says that."""


class Skip:
    """Go on behind every damage; each is logged once, and counted."""

    def __init__(self) -> None:
        self._seen: set[Damage] = set()

    @property
    def count(self) -> int:
        return len(self._seen)

    def __call__(self, damage: Damage) -> None:
        if damage in self._seen:
            return
        self._seen.add(damage)
        log.warning(
            "damage skipped",
            path=str(damage.path),
            position=damage.position,
            from_offset=damage.from_offset,
            to_offset=damage.to_offset,
            reason=damage.reason,
        )
