"""Shared by all ways to authenticate: the peer's certificates, and the schemes it accepts (RFC 8446 section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert, illegal, unexpected
from streams.security.tls13.certificates import Peer, Trust
from streams.security.tls13.delegated import CLIENT, SERVER, check
from streams.security.tls13.messages import (
    Certificate,
    CertificateEntry,
    parse_certificate,
    parse_certificate_request,
)
from streams.security.tls13.names import Extension
from streams.security.tls13.schemes import SCHEMES


@lru_cache(64)
def certificate_message(chain: tuple[bytes, ...], delegated: bytes | None = None) -> bytes:
    """Our own Certificate, the leaf with its delegated credential if there is one: the same for every peer."""
    with_leaf: dict[int, bytes] = {} if delegated is None else {Extension.DELEGATED_CREDENTIAL: delegated}
    entries = (CertificateEntry(der, {} if number else with_leaf) for number, der in enumerate(chain))
    return Certificate(b"", tuple(entries)).encode()


def read_chain(
    body: bytes,
    trust: Trust,
    host: str | None,
    *,
    delegated_schemes: Sequence[int] = (),
    algorithms: Sequence[int] = (),
) -> Peer | None:
    """The peer's chain, verified; None if it is empty. The proof that it holds the key is still to come.

    `delegated_schemes` are those that were offered for a delegated credential, and `algorithms` those that a leaf may
    sign one with. `host` is None for a client's chain.
    """
    certificate = parse_certificate(body)
    if certificate.context:
        raise illegal("certificate with a context")
    for entry in certificate.entries:
        _check_entry(entry, asked=bool(delegated_schemes))
    if not certificate.entries:
        return None
    peer = trust.verify([entry.der for entry in certificate.entries], host)
    delegated = certificate.entries[0].extensions.get(Extension.DELEGATED_CREDENTIAL)
    if delegated is None:
        return peer
    side, now = (CLIENT if host is None else SERVER), trust.clock()
    found, key = check(delegated, side, peer.leaf, now=now, schemes=delegated_schemes, algorithms=algorithms)
    return msgspec.structs.replace(
        peer, key=key, delegated_scheme=found.scheme, delegated_by=SCHEMES[found.algorithm].name
    )


def _check_entry(entry: CertificateEntry, *, asked: bool) -> None:
    """Of extensions only a delegated credential is allowed, if one was asked for (RFC 9345 section 4.1.1)."""
    for kind in entry.extensions:
        if kind != Extension.DELEGATED_CREDENTIAL:
            raise Abort(Alert.UNSUPPORTED_EXTENSION, "a certificate with an extension that was not asked for")
        if not asked:
            raise unexpected("a delegated credential that was not asked for")


def unsupported_key(peer: Peer) -> Abort:
    text = f"peer's certificate: its key ({type(peer.key).__name__}) is not of a kind that was offered"
    return Abort(Alert.UNSUPPORTED_CERTIFICATE, text, "unsupported_certificate")


def certificate_required() -> Abort:
    return Abort(Alert.CERTIFICATE_REQUIRED, "the client did not return a certificate", "no_client_certificate")


def read_request(body: bytes) -> dict[int, bytes]:
    """A CertificateRequest's extensions; during the handshake its context is empty (section 4.3.2)."""
    request = parse_certificate_request(body)
    if request.context:
        raise illegal("certificate_request with a context during the handshake")
    return request.extensions


def accepted_delegated(offered: Mapping[int, bytes]) -> tuple[int, ...]:
    body = offered.get(Extension.DELEGATED_CREDENTIAL)
    return ext.parse_numbers(body, "delegated_credential") if body is not None else ()


def accepted_schemes(offered: Mapping[int, bytes]) -> tuple[int, ...]:
    return ext.parse_numbers(ext.required(offered, Extension.SIGNATURE_ALGORITHMS), "signature_algorithms")
