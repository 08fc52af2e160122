"""What arrives on a TLS connection, record by record, before it is decrypted. No I/O; time is an argument.

A record costs about as much to take as 16 KiB of data, even if it carries a byte or nothing at all (KeyUpdate,
padding): so the work in a chunk of the network goes by its records, not by its bytes. `Records` cuts what arrives into
pieces of bounded work; `Use` tells a peer that has something to say from one that only keeps us busy.
"""

from __future__ import annotations

import threading

READ_BUFFER_BYTES = 256 * 1024
HANDSHAKE_READ_BYTES = 16 * 1024
"""What is read at a time before anybody knows who sends it."""
HEADER_BYTES = 5
PIECE_RECORDS = 32
"""Most records that are taken at a time: about a millisecond of work, or half a MiB of data."""

STEPS_IN_ADVANCE = 3
"""After its first, so many steps of a handshake go before the first ones of others: it has one more, or two."""

FREE_BYTES = 48 * 1024
"""What may arrive in advance of its data: two unfinished records, and the tickets and alerts that there are."""
FREE_BYTES_PER_SECOND = 512.0
MOST_OVERHEAD = 2.0
"""Bytes of records for each byte of data in them: a short message has twice its own length around it."""


class Records:
    """Finds the ends of records in a stream of bytes (RFC 8446 §5.1)."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        """Bytes of the present record that have not been seen."""
        self._steps = 0

    def goes_on(self) -> bool:
        """Count another step of a handshake; True if it goes before the first ones of others."""
        self._steps += 1
        return 1 < self._steps <= 1 + STEPS_IN_ADVANCE

    def piece(self, data: bytes | memoryview) -> int:
        """How many of these bytes to take now; the rest is to be shown again."""
        position, count, size = 0, 0, len(data)
        while position < size:
            if self._left == 0:
                if count == PIECE_RECORDS:
                    break
                count += 1
                end = position + HEADER_BYTES - len(self._header)
                self._header += data[position:end]
                position = min(end, size)
                if len(self._header) < HEADER_BYTES:
                    break
                self._left = self._header[3] << 8 | self._header[4]
                self._header.clear()
            step = min(self._left, size - position)
            self._left -= step
            position += step
        return position


class Use:
    """What a peer's bytes were good for since its handshake."""

    def __init__(self, now: float) -> None:
        self._since = now
        self.arrived = 0
        """Bytes of records."""
        self.useful = 0
        """Bytes of data in them."""

    def is_flood(self, now: float) -> bool:
        """True if the peer sends more records than what it says can need."""
        allowed = FREE_BYTES + FREE_BYTES_PER_SECOND * (now - self._since) + (1 + MOST_OVERHEAD) * self.useful
        return self.arrived > allowed


class _Arriving(threading.local):
    """The buffer that all links of a thread read into: each takes what is in it before the loop turns to another."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))


arriving = _Arriving()
