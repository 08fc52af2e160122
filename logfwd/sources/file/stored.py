"""Which positions are on disk, which are to be stored although nothing was read, and which may be deleted there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from logfwd.sources.file.marks import has_state
from logfwd.sources.file.tail import Tail
from logfwd.sources.position import Block, Mark, Position


class Stored:
    """The positions of one source in the spool, by key. `commit` and `take_forgotten` are for any thread."""

    def __init__(self, positions: Mapping[str, Mark]) -> None:
        self.offsets: dict[str, int] = {key: mark.offset for key, mark in positions.items()}
        """A deleted file stays open until all that was read of it is on disk."""
        self._with_state = {key for key, mark in positions.items() if has_state(mark)}
        self._forgotten: deque[str] = deque()
        self.announced: dict[str, Position] = {}
        """Positions to be stored although nothing was read, all in one transaction."""

    def commit(self, positions: Mapping[str, Mark]) -> None:
        """These positions are on disk."""
        for key, mark in positions.items():
            if key in self.offsets:
                self.offsets[key] = mark.offset
                if has_state(mark):
                    self._with_state.add(key)
                else:
                    self._with_state.discard(key)

    def has_all_of(self, tail: Tail) -> bool:
        """True if what was read of a file is on disk, and no record of it is open there: its file may be needed."""
        is_open = bool(tail.place.state) or tail.key in self._with_state
        return tail.place.offset <= self.offsets[tail.key] and not is_open

    def drop_state(self, key: str) -> None:
        """The record that is open at this position will never be whole."""
        self._with_state.discard(key)

    def take_announced(self, wall_ms: int) -> Block | None:
        """The positions to be stored, as a block without records."""
        if not self.announced:
            return None
        positions, self.announced = self.announced, {}
        return Block(b"", wall_ms, positions=positions)

    def forget(self, keys: Iterable[str]) -> None:
        """These positions may be deleted with the spool's next commit."""
        for key in keys:
            self.offsets.pop(key, None)
            self.announced.pop(key, None)
            self._with_state.discard(key)
            self._forgotten.append(key)

    def take_forgotten(self) -> list[str]:
        """The keys of such positions since the last call."""
        return [self._forgotten.popleft() for _ in range(len(self._forgotten))]
