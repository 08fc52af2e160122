"""Certificate chains: how strongly a verified one authenticates, and whether our own would pass at a peer.

TLS libraries do not hold the signature algorithms of a connection against the certificates of a chain: OpenSSL accepts
an ML-DSA leaf under an ECDSA root where only ML-DSA was offered. So each stack gives the *verified* chain of a peer to
`authentication`, and `modes.check` compares the result with the mode. The signature that a root puts on itself proves
nothing and does not count.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import SignatureAlgorithmOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from streams.errors import ConfigError, Problem
from streams.security import pem
from streams.security.authentication import signed_with, strength, weakest
from streams.security.endpoint import Files
from streams.security.modes import Mode
from streams.security.pki import key_algorithm, signature_algorithm

UNREADABLE = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)
"""What the library raises for certificates that it cannot use."""


# -- of a peer ----------------------------------------------------------------------------------------------------


def authentication(chain: Sequence[x509.Certificate]) -> str:
    """The weakest scheme in a verified chain, from the peer's certificate to the trusted root."""
    own = signed_with(key_algorithm(chain[0]))
    return weakest([own, *map(certificate_scheme, chain, chain[1:])])


def certificate_scheme(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """How a certificate is signed, as IANA spells it: the curve is the issuer's, the hash the certificate's own."""
    named = signed_with(signature_algorithm(certificate))
    if strength(named):
        return named  # without the issuer's key, which takes as long to read as half a verification
    try:
        key, digest = issuer.public_key(), certificate.signature_hash_algorithm
    except UNREADABLE:
        return certificate.signature_algorithm_oid.dotted_string
    if digest is not None and isinstance(key, ec.EllipticCurvePublicKey):
        return f"ecdsa_{key.curve.name}_{digest.name}"
    if digest is not None and isinstance(key, rsa.RSAPublicKey):
        padding = "pss_rsae" if certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS else "pkcs1"
        return f"rsa_{padding}_{digest.name}"
    return signed_with(key_algorithm(issuer))


# -- our own ------------------------------------------------------------------------------------------------------


def wrong_kinds(files: Files, used: Iterable[Mode]) -> Iterator[Problem]:
    """Keys and signatures in our files that a mode does not accept, so that no link in it could ever work."""
    try:
        chain, roots = _read(files, "certificate"), _read(files, "ca")
    except ConfigError as error:
        yield from error.problems
        return
    for mode in used:
        yield from _wrong_kinds(files, mode, chain, roots)


def refusals(files: Files, *, accepting: bool) -> Iterator[Problem]:
    """Why a peer would refuse our certificate, in our role; raises ConfigError for files that cannot be read.

    A chain that another CA than ours has issued is left to the peers, who know that CA.
    """
    (leaf, *others), roots = _read(files, "certificate"), _read(files, "ca")
    if led_to((leaf, *others), roots):
        yield from _path(files, leaf, others, roots, accepting=accepting)


def led_to(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Whether one of these roots, by its name, issued a certificate of the chain."""
    return any(one.issuer == root.subject for one in chain for root in roots)


def _read(files: Files, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(getattr(files, key).read_bytes())
    except (OSError, *UNREADABLE) as error:
        why = pem.fault(getattr(files, key), pem.CERTIFICATE) or str(error)
        raise ConfigError([_problem(files, key, f"cannot be used: {why}")]) from error


def _wrong_kinds(
    files: Files, mode: Mode, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> Iterator[Problem]:
    key, demanded, remedy = key_algorithm(chain[0]), mode.authentication, _remedy(files, mode)
    if signed_with(key) not in (_delegating(mode) if files.stands_for else demanded):
        yield _problem(files, "certificate", f"its key is {key}; {remedy}")
    least = min(map(strength, demanded))
    if not least or mode.classical_chain:
        return
    for certificate in chain:
        if strength(signed_with(signature_algorithm(certificate))) < least:
            text = f"{_name(certificate)} is signed with {signature_algorithm(certificate)}; {remedy}"
            yield _problem(files, "certificate", text)
    for root in roots:
        if strength(signed_with(key_algorithm(root))) < least:
            yield _problem(files, "ca", f"the key of {_name(root)} is {key_algorithm(root)}; {remedy}")


def _path(
    files: Files,
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    accepting: bool,
) -> Iterator[Problem]:
    builder = PolicyBuilder().store(Store(list(roots))).time(datetime.datetime.now(datetime.UTC))
    try:
        if accepting and (host := host_of(leaf)) is not None:
            builder.build_server_verifier(host).verify(leaf, others)
            return
        if accepting:  # without a host there is only the verifier of clients, who have another role
            builder = builder.extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_ANY_ROLE)
        builder.build_client_verifier().verify(leaf, others)
    except (VerificationError, *UNREADABLE) as error:
        yield refused(files, str(error))


_ANY_ROLE = ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
"""The role is then left to OpenSSL's verifier."""


def refused(files: Files, why: str) -> Problem:
    """The problem of a certificate that a verifier does not accept."""
    return _problem(files, "certificate", f"peers would refuse it: {why}; issue it again with `logfwd pki issue`")


def host_of(leaf: x509.Certificate) -> x509.DNSName | x509.IPAddress | None:
    """The first name that the verifier takes for a host: it knows no underscores. A host stands for its pattern."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    for name in names:
        if isinstance(name, x509.IPAddress):
            return name
        if isinstance(name, x509.DNSName) and "_" not in name.value:
            return x509.DNSName(name.value.replace("*", "any"))
    return None


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a subject"


def _remedy(files: Files, mode: Mode) -> str:
    kinds, above = " or ".join(mode.authentication), bool(min(map(strength, mode.authentication)))
    if files.stands_for:
        demanded = f"{' or '.join(_delegating(mode))} in a leaf that delegates{', and above it' if above else ''}"
    elif mode.chains:
        demanded = f"{kinds} in the leaf, and {' or '.join(mode.chains)} above it"
    else:
        demanded = f"{kinds} in {'every place' if above else 'a leaf'}"
    authority, leaf = files.kinds
    if authority == leaf:
        commands = f"`logfwd pki init` and `issue` with --key {leaf}"
    else:
        commands = f"`logfwd pki init --key {authority}` and `issue --key {leaf}`"
    return f"mode {mode.name} demands {demanded}: use {commands}"


def _delegating(mode: Mode) -> tuple[str, ...]:
    """The schemes of a leaf that signs a delegated credential for this mode."""
    return mode.chains or mode.authentication


def _problem(files: Files, key: str, text: str) -> Problem:
    path: Path = getattr(files, key)
    return Problem(path, f"{files.section}.{key}", text)
