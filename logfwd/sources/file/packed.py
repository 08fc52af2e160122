"""One compressed file that is not followed, and what is known of its content."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from logfwd.sources.file.identity import WINDOW_BYTES, Place
from logfwd.sources.file.scan import Found
from logfwd.sources.position import TAIL_BYTES, tail_hash


class Content(msgspec.Struct):
    """What is remembered of the plain content of a file that was looked through."""

    size: int = 0
    last: bytes = b""  # at most TAIL_BYTES
    tails: dict[tuple[int, int], bytes] = {}
    """Hashes of the bytes before some offsets, by offset and length: those of positions that it may belong to."""

    @staticmethod
    def to_compare(places: Collection[Place]) -> Content:
        """Empty, and ready to note what these positions can be compared with."""
        ends = {(place.offset, place.tail_bytes): b"" for place in places}
        windows = {(at + WINDOW_BYTES, WINDOW_BYTES): b"" for place in places for at, _ in place.windows}
        return Content(tails=ends | windows)

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

    def is_beginning_of(self, place: Place) -> bool:
        """True if it ends before the position, and has all of its windows that it is long enough for; one at least."""
        within = [(at + WINDOW_BYTES, hash_) for at, hash_ in place.windows if at + WINDOW_BYTES <= self.size]
        is_equal = all(self.tails.get((end, WINDOW_BYTES)) == hash_ for end, hash_ in within)
        return self.size < place.offset and bool(within) and is_equal


class Packed(msgspec.Struct, eq=False):
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
        """True if it may have to be read: also while nothing is decided about it, because another one is read."""
        return self.settled is None and not self.is_copy
