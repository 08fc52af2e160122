"""A party as an `ssl.SSLContext`, for libraries that want one (aiokafka).

asyncio's and uvloop's TLS call nothing of a context but `wrap_bio`, and of the object that it returns nothing but the
methods below.
"""

from __future__ import annotations

import ssl
from typing import Any

import structlog

from streams.errors import HandshakeFailed, LinkError, PolicyViolation
from streams.security import handshakes, modes
from streams.security.endpoint import Endpoint, Party
from streams.security.modes import Mode

log = structlog.get_logger("streams.security")


class PartyContext(ssl.SSLContext):
    """Makes connections of a party, each judged by the mode; everything else of an SSLContext is unused."""

    _mode: Mode
    _party: Party

    @classmethod
    def of(cls, mode: Mode, party: Party) -> PartyContext:
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._mode, made._party = mode, party
        return made

    def wrap_bio(
        self, incoming: Any, outgoing: Any, server_side: bool = False, server_hostname: Any = None, session: Any = None
    ) -> Any:
        """A connection between two memory BIOs."""
        endpoint = self._party.endpoint(server_hostname)
        return EndpointObject(self._mode, endpoint, incoming, outgoing, host=str(server_hostname))


class EndpointObject:
    """The part of an ssl.SSLObject that asyncio uses."""

    def __init__(
        self, mode: Mode, endpoint: Endpoint, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str
    ) -> None:
        self.endpoint = endpoint
        self._mode = mode
        self._log = log.bind(host=host)
        self._incoming, self._outgoing = incoming, outgoing
        self._left = b""

    def do_handshake(self) -> None:
        self._feed()
        try:
            done = self.endpoint.handshake()
        except HandshakeFailed as error:
            error.seen = self.endpoint.facts().log_fields()
            handshakes.log_failed(self._log, error)
            raise ssl.SSLError(f"{error.reason}: {error}") from error
        finally:
            self._flush()
        if not done:
            raise ssl.SSLWantReadError
        facts = self.endpoint.facts()
        handshakes.log_complete(self._log, facts)
        try:
            modes.check(self._mode, facts)
        except PolicyViolation as violation:
            raise ssl.SSLError(str(violation)) from violation

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Up to `size` bytes, or their number if a buffer is given; b"" or 0 after the peer's goodbye."""
        self._feed()
        try:
            data: bytes | None = self._left or self.endpoint.read()
        except LinkError as error:
            raise ssl.SSLError(str(error)) from error
        finally:
            self._flush()
        if data == b"":
            raise ssl.SSLWantReadError
        data = data or b""
        data, self._left = data[:size], data[size:]
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        self.endpoint.write(data)
        self._flush()
        return len(data)

    def unwrap(self) -> None:
        self.endpoint.close()
        self._flush()

    def pending(self) -> int:
        return len(self._left)

    def getpeercert(self, binary_form: bool = False) -> None:
        """Names were checked by the endpoint."""

    def cipher(self) -> tuple[str, str, int] | None:
        facts = self.endpoint.facts()
        return facts.cipher, facts.version, 0

    def compression(self) -> None:
        """There is none."""

    def selected_alpn_protocol(self) -> None:
        """None was offered."""

    def _feed(self) -> None:
        data = self._incoming.read()
        if data:
            self.endpoint.feed(data)
        elif self._incoming.eof:
            self.endpoint.feed_eof()

    def _flush(self) -> None:
        for part in self.endpoint.take():
            self._outgoing.write(part)
