"""Links without TLS, for clients on the same host: an endpoint that passes bytes on, and its party.

Whoever listens with it decides where that is safe; nothing here is chosen by a mode.
"""

from __future__ import annotations

import datetime

from streams.security.endpoint import Facts

NO_TLS = Facts(version="none", group="none", cipher="none", identities=())


class PlainEndpoint:
    """One side of a connection without TLS. The peer's end of its bytes is its goodbye."""

    renews_keys = True
    """It has none."""
    has_records = False

    def __init__(self) -> None:
        self.complete = False
        self._incoming: list[bytes] = []
        self._outgoing: list[bytes | bytearray] = []
        self._eof = False

    def handshake(self) -> bool:
        self.complete = True
        return True

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        return NO_TLS

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        self._incoming.append(bytes(ciphertext))

    def feed_eof(self) -> None:
        self._eof = True

    def take(self) -> list[bytes | bytearray]:
        parts, self._outgoing = self._outgoing, []
        return parts

    def read(self) -> bytes | None:
        if not self._incoming:
            return None if self._eof else b""
        data = self._incoming[0] if len(self._incoming) == 1 else b"".join(self._incoming)
        self._incoming.clear()
        return data

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        self._outgoing.append(bytes(plaintext))

    def close(self) -> None:
        """There is no goodbye to say: closing the connection says it."""


class PlainParty:
    """One side without TLS."""

    expires = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    delegated_until: datetime.datetime | None = None
    """No certificate is shown, so none expires."""

    def endpoint(self, host: str | None = None) -> PlainEndpoint:
        """An endpoint for a new connection."""
        return PlainEndpoint()
