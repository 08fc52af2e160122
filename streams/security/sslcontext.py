"""The endpoint as an `ssl.SSLContext`, for libraries that want one (aiokafka).

asyncio's and uvloop's TLS ask a context only for `wrap_bio`, and the object that it gives only for what is below.
"""

from __future__ import annotations

import ssl
from typing import Any

import structlog

from streams.errors import HandshakeFailed, LinkError
from streams.security import modes
from streams.security.openssl import Context, Credentials, Endpoint, foreign_context

log = structlog.get_logger("streams.security")


class EndpointContext(ssl.SSLContext):
    """Makes connections of one of our contexts; everything else of an SSLContext is unused."""

    _context: Context

    @classmethod
    def of(cls, context: Context) -> EndpointContext:
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._context = context
        return made

    def wrap_bio(
        self, incoming: Any, outgoing: Any, server_side: bool = False, server_hostname: Any = None, session: Any = None
    ) -> Any:
        """A connection between two memory BIOs."""
        endpoint = Endpoint(self._context, server_side=server_side, host=server_hostname, alpn=None)
        return EndpointObject(endpoint, incoming, outgoing, host=str(server_hostname))


class EndpointObject:
    """What asyncio uses of an ssl.SSLObject."""

    def __init__(self, endpoint: Endpoint, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str) -> None:
        self.endpoint = endpoint
        self._log = log.bind(host=host)
        self._incoming, self._outgoing = incoming, outgoing
        self._left = b""

    def do_handshake(self) -> None:
        self._feed()
        try:
            done = self.endpoint.handshake()
        except HandshakeFailed as error:
            told = self.endpoint.facts().told()
            self._log.warning("handshake failed", reason=error.reason, detail=str(error), **told)
            raise ssl.SSLError(f"{error.reason}: {error}") from error
        finally:
            self._flush()
        if not done:
            raise ssl.SSLWantReadError
        self._log.info("handshake complete", **self.endpoint.facts().told())

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


def kafka_context(mode_name: str, tls: Credentials) -> EndpointContext:
    """A client context for the Kafka leg: one mode, our certificate for brokers that ask, names always checked."""
    return EndpointContext.of(foreign_context(modes.MODES[mode_name], tls.ca, tls))
