"""A party as an `ssl.SSLContext`, for libraries that want one (aiokafka).

asyncio's and uvloop's TLS call nothing of a context but `wrap_bio`, and of the object that it returns nothing but the
methods below.
"""

from __future__ import annotations

import ssl
from typing import Any, Protocol

import structlog

from streams.errors import HandshakeFailed, LinkError, PolicyViolation
from streams.security import handshakes, modes
from streams.security.endpoint import Endpoint, Facts, Party
from streams.security.modes import Mode

log = structlog.get_logger("streams.security")


class Witness(Protocol):
    """Counts the handshakes of a context."""

    def complete(self, mode: Mode, facts: Facts) -> None: ...

    def failed(self, mode: Mode, reason: str) -> None: ...


class PartyContext(ssl.SSLContext):
    """Makes connections of a party, each judged by the mode; everything else of an SSLContext is unused."""

    mode: Mode
    party: Party
    witness: Witness | None = None
    _failure: str = ""

    @classmethod
    def of(cls, mode: Mode, party: Party) -> PartyContext:
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made.mode, made.party = mode, party
        return made

    def note_failure(self, reason: str, text: str) -> None:
        """A handshake failed, or the peer ended a connection by an alert."""
        self._failure = f"{reason}: {text}"
        if self.witness is not None:
            self.witness.failed(self.mode, reason)

    def take_failure(self) -> str:
        """The last failure since this was asked; empty if there was none. asyncio tells of none after the handshake."""
        failure, self._failure = self._failure, ""
        return failure

    def wrap_bio(
        self, incoming: Any, outgoing: Any, server_side: bool = False, server_hostname: Any = None, session: Any = None
    ) -> Any:
        """A connection between two memory BIOs."""
        endpoint = self.party.endpoint(server_hostname)
        return EndpointObject(self, endpoint, incoming, outgoing, host=str(server_hostname))


class EndpointObject:
    """The part of an ssl.SSLObject that asyncio uses."""

    def __init__(
        self, context: PartyContext, endpoint: Endpoint, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str
    ) -> None:
        self.endpoint = endpoint
        self._context = context
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
            self._context.note_failure(error.reason, str(error))
            raise ssl.SSLError(f"{error.reason}: {error}") from error
        finally:
            self._flush()
        if not done:
            raise ssl.SSLWantReadError
        facts = self.endpoint.facts()
        handshakes.log_complete(self._log, facts)
        try:
            modes.check(self._context.mode, facts)
        except PolicyViolation as violation:
            self._context.note_failure("policy", str(violation))
            raise ssl.SSLError(str(violation)) from violation
        if self._context.witness is not None:
            self._context.witness.complete(self._context.mode, facts)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Up to `size` bytes, or their number if a buffer is given; b"" or 0 after the peer's goodbye."""
        self._feed()
        try:
            data: bytes | None = self._left or self.endpoint.read()
        except LinkError as error:
            if isinstance(error, HandshakeFailed):  # in TLS 1.3, a server's verdict on us comes after our handshake
                handshakes.log_failed(self._log, error)
            self._context.note_failure(getattr(error, "reason", "disconnected"), str(error))
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
