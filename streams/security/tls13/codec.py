"""TLS's presentation language (RFC 8446 section 3): bounded reading, and vectors with their length in front.

A `Reader` never looks outside the bytes it was given; anything that does not fit is a decode_error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from streams.security.tls13.alerts import decode_error


class Reader:
    """Reads one structure from its beginning to its end."""

    __slots__ = ("_at", "_data", "_end", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._end, self._what = data, 0, len(data), what

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > self._end:
            raise decode_error(f"{self._what} is truncated")
        data = self._data[self._at : end]
        self._at = end
        return data

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        return int.from_bytes(self.take(4))

    def vector(self, length_bytes: int, least: int = 0, most: int | None = None) -> bytes:
        """A vector whose length stands in front of it in `length_bytes` bytes, of `least` to `most` bytes."""
        size = int.from_bytes(self.take(length_bytes))
        if size < least or (most is not None and size > most):
            raise decode_error(f"{self._what} holds a vector of {size} bytes")
        return self.take(size)

    def u16s(self, length_bytes: int) -> tuple[int, ...]:
        """A vector of at least one 16-bit number."""
        data = self.vector(length_bytes, least=2)
        if len(data) % 2:
            raise decode_error(f"{self._what} holds an odd number of bytes")
        return struct.unpack(f">{len(data) // 2}H", data)

    @property
    def more(self) -> bool:
        return self._at < self._end

    def end(self) -> None:
        """Nothing may be left over."""
        if self._at != self._end:
            raise decode_error(f"{self._what} has {self._end - self._at} bytes too many")


def vector(length_bytes: int, data: bytes) -> bytes:
    """The bytes with their length in front."""
    return len(data).to_bytes(length_bytes) + data


def u16s(values: Iterable[int], length_bytes: int = 2) -> bytes:
    """A vector of 16-bit numbers."""
    numbers = tuple(values)
    return vector(length_bytes, struct.pack(f">{len(numbers)}H", *numbers))
