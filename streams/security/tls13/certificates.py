"""The peer's chain: verified by `cryptography.x509.verification`, never by code of our own; the result is cached.

Only successes are cached, by the chain's SHA-256 and the expected name, until the first certificate of the chain
expires, and for an hour at most. A reload makes a new `Trust` and so drops everything.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from streams.security.chains import certificate_scheme
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.kem import kem_of

KEEP = datetime.timedelta(hours=1)
MAX_KEPT = 4096

KEM_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

_UNREADABLE = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)
"""The exceptions that the library raises for hostile certificates."""


Clock = Callable[[], datetime.datetime]


def now() -> datetime.datetime:
    """The only clock of this stack that verdicts depend on."""
    return datetime.datetime.now(datetime.UTC)


class Peer(msgspec.Struct, frozen=True):
    """A verified chain; the peer has proved it once it has proved that it holds `key`."""

    leaf: x509.Certificate
    key: Any
    chain_schemes: tuple[str, ...]
    """The scheme of each signature in the verified chain, except the root's own."""
    expires: datetime.datetime
    """When the first certificate of the chain expires."""
    between: tuple[x509.Certificate, ...] = ()
    """The certificates between leaf and root."""
    delegated_scheme: int | None = None
    """The scheme of `key` if it comes from a delegated credential and not from the leaf."""
    delegated_by: str | None = None
    """The scheme that the leaf signed that credential with."""


class Trust:
    """The CAs that a party trusts, and for how long it remembers that they have signed a chain."""

    def __init__(
        self,
        roots: Sequence[x509.Certificate],
        *,
        clock: Clock = now,
        keep: datetime.timedelta = KEEP,
    ) -> None:
        self._roots, self.clock, self._keep = tuple(roots), clock, keep
        self._builder = PolicyBuilder().store(Store(list(roots))) if roots else None
        self._kept: dict[tuple[bytes, str | None], tuple[Peer, datetime.datetime]] = {}
        self._names: dict[str, tuple[bytes | None, str]] = {}

    def names_of(self, host: str) -> tuple[bytes | None, str]:
        """A host as SNI wants it (None for an address), and as `verify` does; ValueError for what can be neither."""
        found = self._names.get(host)
        if found is None:
            subject = _subject(host)
            self._policy().build_server_verifier(subject)
            found = (subject.value.encode(), subject.value) if isinstance(subject, x509.DNSName) else (None, host)
            if len(self._names) >= MAX_KEPT:
                self._names.clear()
            self._names[host] = found
        return found

    def verify(self, chain: Sequence[bytes], host: str | None) -> Peer:
        """Verify a server's chain for a host name or address, or a client's if no host is given."""
        digest = hashlib.sha256()
        for der in chain:
            digest.update(len(der).to_bytes(3) + der)
        key, time = (digest.digest(), host), self.clock()
        found = self._kept.get(key)
        if found is not None and time < found[1]:
            return found[0]
        peer = self._verify(chain, host, time)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[key] = (peer, min(peer.expires, time + self._keep))
        return peer

    def _policy(self) -> PolicyBuilder:
        if self._builder is None:
            raise Abort(Alert.UNKNOWN_CA, "peer's certificate: no CA is trusted here", "unknown_ca")
        return self._builder

    def _verify(self, chain: Sequence[bytes], host: str | None, time: datetime.datetime) -> Peer:
        try:
            leaf, *others = [x509.load_der_x509_certificate(der) for der in chain]
            key = leaf.public_key()
        except _UNREADABLE as error:
            raise Abort(Alert.BAD_CERTIFICATE, f"peer's certificate: {error}", "certificate_invalid") from error
        kem = kem_of(key) is not None
        try:
            verified = self._path(leaf, others, host, time, kem=kem)
            schemes = tuple(map(certificate_scheme, verified, verified[1:]))
        except (VerificationError, *_UNREADABLE) as error:
            raise self._why(leaf, others, host, time, error) from error
        if not kem:
            _check_signing_leaf(leaf)
        expires = min(certificate.not_valid_after_utc for certificate in verified)
        return Peer(leaf, key, schemes, expires, tuple(verified[1:-1]))

    def _path(
        self,
        leaf: x509.Certificate,
        others: list[x509.Certificate],
        host: str | None,
        time: datetime.datetime,
        *,
        kem: bool,
    ) -> list[x509.Certificate]:
        builder = self._policy().time(time)
        if kem:
            builder = builder.extension_policies(ca_policy=_ABOVE, ee_policy=_KEM_LEAF)
        if host is None:
            return builder.build_client_verifier().verify(leaf, others).chain
        return builder.build_server_verifier(_subject(host)).verify(leaf, others)

    def _why(
        self,
        leaf: x509.Certificate,
        others: list[x509.Certificate],
        host: str | None,
        time: datetime.datetime,
        error: Exception,
    ) -> Abort:
        """The library gives a sentence; metrics and the peer need a label."""
        if time > leaf.not_valid_after_utc:
            return Abort(Alert.CERTIFICATE_EXPIRED, "peer's certificate: it has expired", "certificate_expired")
        if time < leaf.not_valid_before_utc:
            text = "peer's certificate: it is not yet valid"
            return Abort(Alert.BAD_CERTIFICATE, text, "certificate_not_yet_valid")
        if not any(_issued_by(one, root) for one in (leaf, *others) for root in self._roots):
            return Abort(Alert.UNKNOWN_CA, "peer's certificate: no trusted CA has signed it", "unknown_ca")
        if "subjectAltName" in str(error) and host is not None:
            text = f"peer's certificate: it is not for {host!r}"
            return Abort(Alert.BAD_CERTIFICATE, text, "host_mismatch")
        return Abort(Alert.BAD_CERTIFICATE, f"peer's certificate: {error}", "certificate_invalid")


@lru_cache(MAX_KEPT)
def _subject(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def _check_signing_leaf(leaf: x509.Certificate) -> None:
    """RFC 8446 section 4.4.2.2: a present keyUsage must allow signatures; and an RSA key must be of rsaEncryption."""
    try:
        signs = leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        signs = True
    if not signs:
        text = "peer's certificate: its key usage does not allow signatures"
        raise Abort(Alert.BAD_CERTIFICATE, text, "certificate_invalid")
    if leaf.public_key_algorithm_oid == x509.PublicKeyAlgorithmOID.RSASSA_PSS:
        text = "peer's certificate: its key is of RSASSA-PSS, for which no scheme was offered"
        raise Abort(Alert.UNSUPPORTED_CERTIFICATE, text, "unsupported_certificate")


def _check_kem_usage(_: Policy, leaf: x509.Certificate, usage: x509.KeyUsage) -> None:
    """RFC 9935: a KEM's key is for keyEncipherment alone, which the library does not check by itself."""
    if usage != KEM_USAGE:
        raise ValueError("a KEM's leaf is for keyEncipherment alone")


def _check_kem_purpose(policy: Policy, leaf: x509.Certificate, usage: x509.ExtendedKeyUsage) -> None:
    """A KEM's leaf has one role, and so it is that of the peer."""
    if list(usage) != [policy.extended_key_usage]:
        raise ValueError("a KEM's leaf is for one role, and this one is for another")


_ABOVE = ExtensionPolicy.webpki_defaults_ca()
_KEM_LEAF = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_kem_usage)
    .require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_kem_purpose)
)
"""In the place of the library's own checks of the two, which demand less."""


def _issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    if certificate == root:
        return True
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, TypeError, *_UNREADABLE):
        return False
    return True
