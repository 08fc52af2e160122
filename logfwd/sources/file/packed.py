"""One compressed file that is not followed, and what is known of its content."""

from __future__ import annotations

from dataclasses import dataclass, field

from logfwd.sources.file.identity import Place
from logfwd.sources.file.scan import Found
from logfwd.sources.position import TAIL_BYTES, tail_hash


@dataclass(slots=True)
class Content:
    """What is remembered of the plain content of a file that was looked through."""

    size: int = 0
    last: bytes = b""  # at most TAIL_BYTES
    tails: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Hashes of the bytes before some offsets, by offset and length: those of positions that it may belong to."""

    def add(self, piece: bytes) -> None:
        joined, begin = self.last + piece, self.size - len(self.last)
        for offset, length in self.tails:
            if self.size < offset <= self.size + len(piece):
                self.tails[offset, length] = tail_hash(joined[offset - length - begin : offset - begin])
        self.size += len(piece)
        self.last = joined[-TAIL_BYTES:]

    def fits(self, place: Place) -> bool | None:
        """True if the bytes before this offset are those of the position; None if they were not looked at."""
        if place.offset == self.size:
            return tail_hash(self.last[len(self.last) - place.tail_bytes :]) == place.tail_hash
        if place.offset > self.size:
            return False
        found = self.tails.get((place.offset, place.tail_bytes))
        return None if found is None else found == place.tail_hash


@dataclass(eq=False, slots=True)
class Packed:
    """A compressed file that is not followed."""

    file: Found
    compression: str
    since: float  # it has not changed since
    head: bytes = b""  # the first bytes of its content; empty while they are not there
    content: Content | None = None
    wanted: bool = False  # to be looked through
    damage: str = ""
    is_copy: bool = False  # of a file that is there
    is_said: bool = False
    settled: int | None = None  # nothing is to be done as long as positions have this generation

    @property
    def is_open(self) -> bool:
        """True if it may have to be read."""
        return self.wanted and self.settled is None and not self.is_copy
