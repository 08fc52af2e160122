"""Both sides of every kind of handshake that `logbench stacks` compares, all with X25519MLKEM768."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bench.handshakes.authority import Authority
from streams.security.endpoint import ALPN, Credentials, Party
from streams.security.modes import TLS13, X25519MLKEM768, Mode
from streams.security.openssl import party as openssl
from streams.security.tls13.certificates import KEEP, Trust, now
from streams.security.tls13.groups import GROUP_CODES
from streams.security.tls13.kem import KEM_CODES, KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.party import Tls13Party
from streams.security.tls13.pdk import PdkAuthentication, ServerKey, StoredKey, fingerprint
from streams.security.tls13.schemes import SCHEME_CODES, KeySigner
from streams.security.tls13.settings import Authentication, Settings
from streams.security.tls13.signature import Credential, Signature

HOST, CLIENT = "localhost", "spiffe://bench/forwarder"
NAMES = (CLIENT, HOST)
SCHEMES = {"ECDSA": "ecdsa_secp256r1_sha256", "ML-DSA-44": "mldsa44", "ML-DSA-65": "mldsa65"}
_HOUR = datetime.timedelta(hours=1)
_numbers = count()


class Sides(NamedTuple):
    """A connecting and an accepting party."""

    client: Party
    server: Party


# -- OpenSSL -------------------------------------------------------------------------------------------------------


def _openssl(leaf: str, authority: str, directory: Path, mutual: bool) -> Sides:
    root = Authority(authority)
    client, server = (_files(root, leaf, name, directory) for name in NAMES)
    mode = Mode(name="bench", version=TLS13, groups=(X25519MLKEM768,), authentication=(SCHEMES[leaf],))
    accepting = (
        openssl.server([mode], server)
        if mutual
        else openssl.foreign_server([mode], "tls", server.certificate, server.key, None, ALPN)
    )
    return Sides(openssl.client(mode, client), accepting)


def _files(root: Authority, leaf: str, name: str, directory: Path) -> Credentials:
    chain, key = root.leaf(leaf, name)
    stem = directory / f"leaf-{next(_numbers)}"
    files = Credentials(stem.with_suffix(".pem"), stem.with_suffix(".key"), stem.with_suffix(".ca"))
    encoding = serialization.Encoding.PEM
    files.certificate.write_bytes(b"".join(x509.load_der_x509_certificate(der).public_bytes(encoding) for der in chain))
    files.key.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    files.ca.write_bytes(root.certificate.public_bytes(encoding))
    return files


# -- our own -------------------------------------------------------------------------------------------------------


def _own(root: Authority, ways: Sequence[Authentication], mutual: bool, *, keep: datetime.timedelta = KEEP) -> Sides:
    """`ways` are the client's and the server's; each keeps the chains that it has verified for so long."""

    def party(way: Authentication, accepting: bool) -> Tls13Party:
        settings = Settings(
            groups=(GROUP_CODES[X25519MLKEM768],),
            suites=(0x1301,),
            authentication=way,
            trust=Trust([root.certificate], keep=keep),
            alpn=ALPN,
            ask_client=mutual,
        )
        return Tls13Party(settings, now(), accepting=accepting)

    return Sides(party(ways[0], False), party(ways[1], True))


def _signatures(_: Path, mutual: bool) -> Sides:
    root = Authority("ML-DSA-44")
    held = [root.leaf("ECDSA", name) for name in NAMES]
    schemes = (SCHEME_CODES[SCHEMES["ECDSA"]],)
    return _own(root, [Signature(schemes, Credential(chain, KeySigner(key))) for chain, key in held], mutual)


def _kems(root: Authority) -> tuple[list[KemAuthentication], Any]:
    """The client's way and the server's, and the server's key."""
    held = [root.leaf("ML-KEM-768", name) for name in NAMES]
    kems, schemes = (KEM_CODES["ML-KEM-768"],), (SCHEME_CODES["mldsa44"],)
    ways = [KemAuthentication(kems, schemes, KemCredential(chain, KemKey(key))) for chain, key in held]
    return ways, held[1][1]


def _kemtls(keep: datetime.timedelta, _: Path, mutual: bool) -> Sides:
    root = Authority("ML-DSA-44")
    return _own(root, _kems(root)[0], mutual, keep=keep)


def _stored_key(_: Path, mutual: bool) -> Sides:
    root = Authority("ML-DSA-44")
    (client, server), key = _kems(root)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    until = now() + _HOUR
    stored, keys = StoredKey(spki, (HOST,), until), {fingerprint(spki): ServerKey(KemKey(key), until)}
    if not mutual:
        client = msgspec.structs.replace(client, credential=None)
    return _own(root, [PdkAuthentication(way, stored, keys) for way in (client, server)], mutual)


KINDS: Mapping[str, Callable[[Path, bool], Sides]] = {
    "OpenSSL: ECDSA": partial(_openssl, "ECDSA", "ML-DSA-44"),
    "OpenSSL: ML-DSA-44": partial(_openssl, "ML-DSA-44", "ML-DSA-44"),
    "OpenSSL: ML-DSA-65": partial(_openssl, "ML-DSA-65", "ML-DSA-65"),
    "ours: ECDSA": _signatures,
    "KEMTLS": partial(_kemtls, KEEP),
    "KEMTLS, new chains": partial(_kemtls, datetime.timedelta()),
    "KEMTLS, stored key": _stored_key,
}
"""By name: the two sides, with certificates in a directory, authenticated both or the server alone."""
