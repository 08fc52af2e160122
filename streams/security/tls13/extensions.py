"""The bodies of the extensions that this stack reads or sends (RFC 8446 section 4.2, RFC 6066, RFC 7301)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from streams.security.tls13.alerts import Abort, Alert, decode_error, illegal
from streams.security.tls13.codec import Reader, u16s, vector
from streams.security.tls13.names import Extension

HOST_NAME = 0


def required(extensions: Mapping[int, bytes], kind: Extension) -> bytes:
    """An extension that must be there."""
    if kind not in extensions:
        raise Abort(Alert.MISSING_EXTENSION, f"{kind.name.lower()} is missing")
    return extensions[kind]


def parse_numbers(body: bytes, what: str) -> tuple[int, ...]:
    """supported_groups, signature_algorithms and signature_algorithms_cert have this shape."""
    reader = Reader(body, what)
    numbers = reader.u16s(2)
    reader.end()
    return numbers


def encode_numbers(numbers: Iterable[int]) -> bytes:
    return u16s(numbers)


def parse_offered_versions(body: bytes) -> tuple[int, ...]:
    reader = Reader(body, "supported_versions")
    versions = reader.u16s(1)
    reader.end()
    return versions


def encode_offered_versions(versions: Iterable[int]) -> bytes:
    return u16s(versions, 1)


def parse_number(body: bytes, what: str) -> int:
    """The chosen version in a ServerHello, the wanted group in a HelloRetryRequest."""
    reader = Reader(body, what)
    number = reader.u16()
    reader.end()
    return number


def parse_share(body: bytes) -> tuple[int, bytes]:
    """The server's key share."""
    reader = Reader(body, "key_share")
    group, share = reader.u16(), reader.vector(2)
    reader.end()
    return group, _not_empty(share)


def encode_share(group: int, share: bytes) -> bytes:
    return group.to_bytes(2) + vector(2, share)


def parse_shares(body: bytes) -> dict[int, bytes]:
    """The client's key shares, none twice; an empty list asks for a HelloRetryRequest."""
    reader = Reader(body, "key_share")
    listed = Reader(reader.vector(2), "key_share")
    reader.end()
    shares: dict[int, bytes] = {}
    while listed.more:
        group, share = listed.u16(), _not_empty(listed.vector(2))
        if group in shares:
            raise illegal(f"two key shares for group {group}")
        shares[group] = share
    return shares


def _not_empty(share: bytes) -> bytes:
    """A share of a wrong length is an illegal_parameter, whichever length that is."""
    if not share:
        raise illegal("an empty key share")
    return share


def encode_shares(shares: Iterable[tuple[int, bytes]]) -> bytes:
    return vector(2, b"".join(encode_share(group, share) for group, share in shares))


def parse_protocols(body: bytes) -> tuple[bytes, ...]:
    """ALPN (RFC 7301): a list of names, none empty."""
    reader = Reader(body, "application_layer_protocol_negotiation")
    listed = Reader(reader.vector(2, least=2), "application_layer_protocol_negotiation")
    reader.end()
    names = []
    while listed.more:
        names.append(listed.vector(1, least=1))
    return tuple(names)


def encode_protocols(names: Sequence[bytes]) -> bytes:
    return vector(2, b"".join(vector(1, name) for name in names))


def check_server_name(body: bytes) -> None:
    """RFC 6066 section 3: this stack has one certificate and needs no name, but a name must be well-formed."""
    reader = Reader(body, "server_name")
    listed = Reader(reader.vector(2, least=1), "server_name")
    reader.end()
    seen = set()
    while listed.more:
        kind = listed.u8()
        listed.vector(2, least=1)
        if kind in seen:
            raise illegal("two server names of one type")
        seen.add(kind)


def encode_server_name(host: bytes) -> bytes:
    return vector(2, bytes((HOST_NAME,)) + vector(2, host))


def parse_cookie(body: bytes) -> bytes:
    reader = Reader(body, "cookie")
    cookie = reader.vector(2, least=1)
    reader.end()
    return cookie


def check_empty(body: bytes, what: str) -> None:
    if body:
        raise decode_error(f"{what} must be empty here")
