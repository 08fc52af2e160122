"""Certificates with keys of every kind, endpoints of both stacks, and a wire without delays between two of them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from streams.security.endpoint import Credentials
from streams.security.endpoint import Endpoint as Peer
from streams.security.modes import TLS13, Mode
from streams.security.openssl import context
from streams.security.openssl.endpoint import OpenSSLEndpoint
from streams.security.pki import DELEGATION_USAGE
from streams.security.tls13.certificates import Trust
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.groups import GROUP_CODES
from streams.security.tls13.kem import KEMS, KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.party import Tls13Party, load
from streams.security.tls13.schemes import SCHEME_CODES, SCHEMES
from streams.security.tls13.settings import Settings
from streams.security.tls13.signature import Credential, Signature
from streams.security.tls13.suites import SUITES

HOST = "localhost"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
ALPN = b"logfwd/1"
EVERY_SIGNATURE = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "ed25519",
    "mldsa44",
    "mldsa65",
)
MAKE_KEY: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mlkem768": mlkem.MLKEM768PrivateKey.generate,
    "mlkem1024": mlkem.MLKEM1024PrivateKey.generate,
}
SCHEME_OF = {
    "p256": "ecdsa_secp256r1_sha256",
    "p384": "ecdsa_secp384r1_sha384",
    "rsa": "rsa_pss_rsae_sha256",
    "ed25519": "ed25519",
    "mldsa44": "mldsa44",
    "mldsa65": "mldsa65",
}


# -- certificates ------------------------------------------------------------------------------------------------


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in names for name in every.split()})


def _digest(key: Any) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None


class Authority:
    """A CA with a key of some kind, root or intermediate."""

    def __init__(self, kind: str = "p256", *, name: str = "test CA", parent: Authority | None = None) -> None:
        self.key: Any = MAKE_KEY[kind]()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (subject, self.key) if parent is None else (parent.certificate.subject, parent.key)
        self.chain: list[x509.Certificate] = []
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + 1000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        if parent is not None:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(parent.key.public_key()), critical=False
            )
        self.certificate: x509.Certificate = builder.sign(signer, _digest(signer))
        if parent is not None:
            self.chain = [self.certificate, *parent.chain]

    def leaf(
        self,
        public_key: Any,
        names: Sequence[str],
        *,
        start: datetime.datetime = NOW - DAY,
        end: datetime.datetime = NOW + DAY,
        key_usage: str = "digital_signature",
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        delegates: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
            .add_extension(usage(key_usage), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if delegates:
            usage_of = x509.UnrecognizedExtension(DELEGATION_USAGE, b"\x05\x00")
            builder = builder.add_extension(usage_of, critical=False)
        return builder.sign(self.key, _digest(self.key))

    def issue(
        self,
        directory: Path,
        kind: str = "p256",
        names: Sequence[str] = (HOST,),
        *,
        root: Authority | None = None,
        **options: Any,
    ) -> Credentials:
        """A leaf's files; those of an intermediate's leaf hold its chain."""
        key = MAKE_KEY[kind]()
        leaf = self.leaf(key.public_key(), names, **options)
        directory.mkdir(parents=True, exist_ok=True)
        files = Credentials(directory / "leaf.pem", directory / "leaf.key", directory / "ca.pem")
        files.certificate.write_bytes(b"".join(map(pem, [leaf, *self.chain])))
        files.ca.write_bytes(pem((root or self).certificate))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.GeneralName:
    if ":" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# -- endpoints ---------------------------------------------------------------------------------------------------


def settings(credentials: Credentials, **changes: Any) -> Settings:
    """Everything that this stack knows, unless said otherwise; groups by their names."""
    loaded = load(credentials)
    groups = changes.pop("groups", ("X25519MLKEM768", "SecP256r1MLKEM768", "X25519", "secp256r1"))
    shares = changes.pop("shares", groups[:1])
    (found,) = loaded.credentials
    assert isinstance(found, Credential)
    way = Signature(changes.pop("schemes", tuple(SCHEMES)), changes.pop("credential", found))
    made = Settings(
        groups=tuple(GROUP_CODES[name] for name in groups),
        shares=tuple(GROUP_CODES[name] for name in shares),
        suites=tuple(SUITES),
        authentication=way,
        trust=loaded.trust,
        alpn=ALPN,
    )
    return msgspec.structs.replace(made, **changes)


def kem_credential(authority: Authority, kind: str, name: str, **options: Any) -> KemCredential:
    """A KEM's leaf, for a client if it is named by a URI."""
    key = MAKE_KEY[kind]()
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if ":" in name else ExtendedKeyUsageOID.SERVER_AUTH
    chosen = {"key_usage": "key_encipherment", "purposes": [purpose]} | options
    leaf = authority.leaf(key.public_key(), [name], **chosen)
    chain = tuple(one.public_bytes(serialization.Encoding.DER) for one in (leaf, *authority.chain))
    return KemCredential(chain, KemKey(key))


def kem_settings(
    authority: Authority, credential: KemCredential | None, groups: Sequence[str] = ("X25519MLKEM768",), **changes: Any
) -> Settings:
    """A side that authenticates by KEM under an authority that signs with ML-DSA."""
    way = KemAuthentication(
        changes.pop("kems", tuple(KEMS)),
        changes.pop("chain_schemes", (SCHEME_CODES["mldsa65"], SCHEME_CODES["mldsa44"])),
        credential,
    )
    made = Settings(
        groups=tuple(GROUP_CODES[name] for name in groups),
        suites=tuple(SUITES),
        authentication=way,
        trust=Trust([authority.certificate]),
        alpn=ALPN,
    )
    return msgspec.structs.replace(made, **changes)


def client_of(made: Settings, host: str = HOST) -> Endpoint:
    return Tls13Party(made, NOW, accepting=False).endpoint(host)


def server_of(made: Settings) -> Endpoint:
    return Tls13Party(made, NOW, accepting=True).endpoint()


def our_client(credentials: Credentials, *, host: str = HOST, **changes: Any) -> Endpoint:
    return client_of(settings(credentials, **changes), host)


def our_server(credentials: Credentials, **changes: Any) -> Endpoint:
    return server_of(settings(credentials, **changes))


EVERY_MODE = Mode(
    name="test",
    version=TLS13,
    groups=("X25519MLKEM768", "SecP256r1MLKEM768", "X25519", "secp256r1"),
    authentication=EVERY_SIGNATURE,
)


def openssl_client(
    credentials: Credentials, groups: str, *, host: str = HOST, suite: str | None = None
) -> OpenSSLEndpoint:
    """`groups` in OpenSSL's own list language."""
    made = context.client_context(EVERY_MODE, credentials)
    context._set_list(context._lib.SSL_CTX_set1_curves_list, made, groups)
    if suite is not None:
        made.set_tls13_ciphersuites(suite.encode())
    return OpenSSLEndpoint(made, server_side=False, host=host)


def openssl_server(credentials: Credentials, groups: str, *, mutual: bool = True) -> OpenSSLEndpoint:
    made = context.server_context([EVERY_MODE], credentials)
    context._set_list(context._lib.SSL_CTX_set1_curves_list, made, groups)
    if not mutual:
        made.set_verify(0)
    return OpenSSLEndpoint(made, server_side=True)


# -- the wire ----------------------------------------------------------------------------------------------------


def carry(one: Peer, other: Peer) -> int:
    """What one has to send is fed to the other; returns how many bytes that was."""
    parts = one.take()
    for part in parts:
        other.feed(part)
    return sum(map(len, parts))


def connect(client: Peer, server: Peer) -> None:
    """Run a handshake to its end; raises what the first side to fail raises, its alert delivered."""
    for _ in range(12):
        for one, other in ((client, server), (server, client)):
            try:
                if not one.complete:
                    one.handshake()
            finally:
                carry(one, other)
        if client.complete and server.complete:
            return
    raise AssertionError("the handshake does not end")


def received(peer: Peer) -> bytes:
    """All plaintext that has come."""
    data = b""
    while part := peer.read():
        data += part
    return data


def exchange(client: Peer, server: Peer, size: int = 100_000) -> None:
    """Data both ways, then both goodbyes."""
    text = bytes(range(256)) * (size // 256)
    for one, other in ((client, server), (server, client)):
        one.write(text)
        carry(one, other)
        assert received(other) == text
    for one, other in ((client, server), (server, client)):
        one.close()
        carry(one, other)
        assert other.read() is None
