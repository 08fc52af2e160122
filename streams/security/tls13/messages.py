"""Handshake messages (RFC 8446 section 4) to structs and back: shape only, no judgement of what they say.

Each `encode()` gives a whole message with its 4-byte header; each `parse_…` takes a body without it. An extension
block becomes a dict in wire order, so that a message that was parsed encodes to the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from streams.security.tls13.alerts import Abort, Alert, decode_error, illegal
from streams.security.tls13.codec import Reader, u16s, vector
from streams.security.tls13.names import RETRY_RANDOM, TLS12, HandshakeType

MAX_CERTIFICATES = 16

MAX_BYTES: dict[int, int] = {
    HandshakeType.CLIENT_HELLO: 1 << 17,
    HandshakeType.SERVER_HELLO: 1 << 14,
    HandshakeType.ENCRYPTED_EXTENSIONS: 1 << 14,
    HandshakeType.CERTIFICATE_REQUEST: 1 << 16,
    HandshakeType.CERTIFICATE: 1 << 17,
    HandshakeType.CERTIFICATE_VERIFY: 1 << 14,
    HandshakeType.FINISHED: 64,
    HandshakeType.NEW_SESSION_TICKET: 1 << 17,
    HandshakeType.KEY_UPDATE: 1,
    HandshakeType.KEM_ENCAPSULATION: 2048,
}
"""The longest body that is taken, judged by the header, before memory is spent on it."""


_EXTENSION = struct.Struct(">HH")
"""Its type, and the length of its body."""


def message(kind: HandshakeType, body: bytes) -> bytes:
    return bytes((kind,)) + vector(3, body)


# -- extension blocks --------------------------------------------------------------------------------------------


def parse_extensions(data: bytes, what: str) -> dict[int, bytes]:
    """An extension block without its length; a type that comes twice is an illegal_parameter (section 4.2)."""
    found: dict[int, bytes] = {}
    at, end = 0, len(data)
    while at < end:  # half of all parsing is here, so without a Reader
        start = at + _EXTENSION.size
        if start > end:
            raise decode_error(f"extensions of {what} is truncated")
        kind, size = _EXTENSION.unpack_from(data, at)
        at = start + size
        if at > end:
            raise decode_error(f"extensions of {what} is truncated")
        if kind in found:
            raise illegal(f"{what} holds extension {kind} twice")
        found[kind] = data[start:at]
    return found


def encode_extensions(extensions: Mapping[int, bytes]) -> bytes:
    return vector(2, b"".join([_EXTENSION.pack(kind, len(body)) + body for kind, body in extensions.items()]))


# -- hellos ------------------------------------------------------------------------------------------------------


class ClientHello(msgspec.Struct, frozen=True, kw_only=True):
    """Section 4.1.2."""

    random: bytes
    session_id: bytes
    suites: tuple[int, ...]
    extensions: dict[int, bytes]
    compression: bytes = b"\0"
    version: int = TLS12

    def encode(self) -> bytes:
        body = (
            self.version.to_bytes(2)
            + self.random
            + vector(1, self.session_id)
            + u16s(self.suites)
            + vector(1, self.compression)
            + encode_extensions(self.extensions)
        )
        return message(HandshakeType.CLIENT_HELLO, body)


def parse_client_hello(body: bytes) -> ClientHello:
    """A hello without extensions is one of TLS 1.2 or less, which is not a malformed one: an alert of its own."""
    reader = Reader(body, "client_hello")
    version, random, session_id = reader.u16(), reader.take(32), reader.vector(1, most=32)
    suites, compression = reader.u16s(2), reader.vector(1, least=1)
    if not reader.more:
        raise Abort(Alert.PROTOCOL_VERSION, "the peer does not speak TLS 1.3", "protocol_version")
    extensions = parse_extensions(reader.vector(2), "client_hello")
    reader.end()
    return ClientHello(
        random=random,
        session_id=session_id,
        suites=suites,
        extensions=extensions,
        compression=compression,
        version=version,
    )


class ServerHello(msgspec.Struct, frozen=True, kw_only=True):
    """Section 4.1.3; a HelloRetryRequest is one with a random of its own (section 4.1.4)."""

    random: bytes
    session_id: bytes
    suite: int
    extensions: dict[int, bytes]
    compression: int = 0
    version: int = TLS12

    @property
    def retry(self) -> bool:
        return self.random == RETRY_RANDOM

    def encode(self) -> bytes:
        body = (
            self.version.to_bytes(2)
            + self.random
            + vector(1, self.session_id)
            + self.suite.to_bytes(2)
            + bytes((self.compression,))
            + encode_extensions(self.extensions)
        )
        return message(HandshakeType.SERVER_HELLO, body)


def parse_server_hello(body: bytes) -> ServerHello:
    """A hello of TLS 1.2 may have no extensions: the handshake refuses it for its version."""
    reader = Reader(body, "server_hello")
    version, random, session_id = reader.u16(), reader.take(32), reader.vector(1, most=32)
    suite, compression = reader.u16(), reader.u8()
    extensions = parse_extensions(reader.vector(2), "server_hello") if reader.more else {}
    reader.end()
    return ServerHello(
        random=random,
        session_id=session_id,
        suite=suite,
        extensions=extensions,
        compression=compression,
        version=version,
    )


def parse_encrypted_extensions(body: bytes) -> dict[int, bytes]:
    """Section 4.3.1."""
    reader = Reader(body, "encrypted_extensions")
    extensions = parse_extensions(reader.vector(2), "encrypted_extensions")
    reader.end()
    return extensions


def encode_encrypted_extensions(extensions: Mapping[int, bytes]) -> bytes:
    return message(HandshakeType.ENCRYPTED_EXTENSIONS, encode_extensions(extensions))


# -- authentication ----------------------------------------------------------------------------------------------


class CertificateRequest(msgspec.Struct, frozen=True):
    """Section 4.3.2."""

    context: bytes
    extensions: dict[int, bytes]

    def encode(self) -> bytes:
        return message(HandshakeType.CERTIFICATE_REQUEST, vector(1, self.context) + encode_extensions(self.extensions))


def parse_certificate_request(body: bytes) -> CertificateRequest:
    reader = Reader(body, "certificate_request")
    request = CertificateRequest(reader.vector(1), parse_extensions(reader.vector(2), "certificate_request"))
    reader.end()
    return request


class CertificateEntry(msgspec.Struct, frozen=True):
    """One certificate in DER, with the extensions that came with it."""

    der: bytes
    extensions: dict[int, bytes] = {}


class Certificate(msgspec.Struct, frozen=True):
    """Section 4.4.2; the leaf first, an empty list from a client that has none."""

    context: bytes
    entries: tuple[CertificateEntry, ...]

    def encode(self) -> bytes:
        entries = b"".join(vector(3, entry.der) + encode_extensions(entry.extensions) for entry in self.entries)
        return message(HandshakeType.CERTIFICATE, vector(1, self.context) + vector(3, entries))


def parse_certificate(body: bytes) -> Certificate:
    reader = Reader(body, "certificate")
    context, listed = reader.vector(1), Reader(reader.vector(3), "certificate")
    reader.end()
    entries: list[CertificateEntry] = []
    while listed.more:
        if len(entries) == MAX_CERTIFICATES:
            raise Abort(Alert.BAD_CERTIFICATE, f"the peer sent more than {MAX_CERTIFICATES} certificates")
        der = listed.vector(3, least=1)
        entries.append(CertificateEntry(der, parse_extensions(listed.vector(2), "a certificate entry")))
    return Certificate(context, tuple(entries))


class CertificateVerify(msgspec.Struct, frozen=True):
    """Section 4.4.3."""

    scheme: int
    signature: bytes

    def encode(self) -> bytes:
        return message(HandshakeType.CERTIFICATE_VERIFY, self.scheme.to_bytes(2) + vector(2, self.signature))


def parse_certificate_verify(body: bytes) -> CertificateVerify:
    reader = Reader(body, "certificate_verify")
    verify = CertificateVerify(reader.u16(), reader.vector(2))
    reader.end()
    return verify


def encode_finished(verify_data: bytes) -> bytes:
    return message(HandshakeType.FINISHED, verify_data)


# -- after the handshake -----------------------------------------------------------------------------------------


def encode_key_update(*, request: bool) -> bytes:
    """Section 4.6.3."""
    return message(HandshakeType.KEY_UPDATE, bytes((request,)))


def parse_key_update(body: bytes) -> bool:
    """Whether the peer asks for one of ours."""
    if len(body) != 1:
        raise decode_error(f"key_update of {len(body)} bytes")
    if body[0] > 1:
        raise illegal(f"key_update with {body[0]}")
    return body == b"\1"


def check_new_session_ticket(body: bytes) -> None:
    """Section 4.6.1: a ticket must be well-formed; this stack resumes nothing and drops it."""
    reader = Reader(body, "new_session_ticket")
    reader.take(8)
    reader.vector(1)
    reader.vector(2, least=1)
    parse_extensions(reader.vector(2), "new_session_ticket")
    reader.end()
