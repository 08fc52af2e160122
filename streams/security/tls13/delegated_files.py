"""Delegated credentials as files: made for `logfwd pki delegate`, and read for a party.

A file holds the delegated private key and the credential, both PEM, so that a renewal replaces the two at once.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from streams.security.pki import DELEGATES, PkiError, pem_of, write
from streams.security.tls13 import delegated
from streams.security.tls13.alerts import Abort
from streams.security.tls13.certificates import now
from streams.security.tls13.delegated import CLIENT, ISSUED_LIFETIME, SERVER, Delegated
from streams.security.tls13.kem import KEMS, kem_of
from streams.security.tls13.schemes import SCHEMES, KeySigner, schemes_of

LABEL = "DELEGATED CREDENTIAL"
_BLOCK = re.compile(rf"-----BEGIN {LABEL}-----(.*?)-----END {LABEL}-----".encode(), re.DOTALL)


def delegate(
    certificate: Path, key: Path, out: Path, *, kind: str, side: str, lifetime: datetime.timedelta, force: bool
) -> datetime.datetime:
    """Write a new key of a kind (`DELEGATES`) and its credential, signed by a certificate's key; returns its end.

    `side`: the role in which it may be used. It lasts no longer than the certificate. PkiError says what is wrong.
    """
    if not datetime.timedelta() < lifetime <= ISSUED_LIFETIME:
        raise PkiError(f"a delegated credential lasts at most {ISSUED_LIFETIME // datetime.timedelta(hours=1)} hours")
    leaf, signer = _leaf(certificate), _signer(key)
    if signer.public_key != leaf.public_key():
        raise PkiError(f"{key} is not the key of {certificate}")
    made, time = DELEGATES[kind](), now()
    end = min(lifetime, leaf.not_valid_after_utc - time)
    found = delegated.issue(side, leaf, signer, _scheme(made.public_key()), made.public_key(), now=time, lifetime=end)
    try:
        _check(found.raw, side, leaf)
    except Abort as refusal:
        text = _words(refusal)
        raise PkiError(f"{certificate}: {text}; issue it again with `logfwd pki issue --delegates`") from refusal
    write(out, pem_of(made) + encode(found.raw), private=True, force=force)
    return found.until


def encode(raw: bytes) -> bytes:
    """A credential in PEM, with the label that other tools use."""
    lines = base64.encodebytes(raw)  # 76 characters a line, which every reader of PEM takes
    return f"-----BEGIN {LABEL}-----\n".encode() + lines + f"-----END {LABEL}-----\n".encode()


def read(data: bytes, leaf: x509.Certificate, public_key: Any, sides: Sequence[str] = (SERVER, CLIENT)) -> Delegated:
    """The credential in a file for this key, checked as a peer does in one of these roles.

    It goes with a leaf whose key is elsewhere. ValueError says what is wrong.
    """
    block = _BLOCK.search(data)
    if block is None:
        raise ValueError("there is no delegated credential in it")
    raw, refusals = base64.b64decode(block[1]), []
    for side in sides:
        try:
            found, key = _check(raw, side, leaf)
        except Abort as refusal:
            refusals.append(_words(refusal))
            continue
        if key != public_key:
            raise ValueError("its credential is for another key")
        until = leaf.not_valid_before_utc + datetime.timedelta(seconds=found.valid_time)
        return Delegated(raw, found.scheme, found.algorithm, until)
    raise ValueError(refusals[0])


def _check(raw: bytes, side: str, leaf: x509.Certificate) -> tuple[delegated.DelegatedCredential, Any]:
    return delegated.check(raw, side, leaf, now=now(), schemes=(*KEMS, *SCHEMES), algorithms=tuple(SCHEMES))


def _words(refusal: Abort) -> str:
    return refusal.text.removeprefix("peer's delegated credential: ")


def _scheme(public_key: Any) -> int:
    kem = kem_of(public_key)
    return schemes_of(public_key)[0] if kem is None else kem.code


def _leaf(path: Path) -> x509.Certificate:
    try:
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a certificate: {error}") from error
    if leaf.not_valid_after_utc <= now():
        raise PkiError(f"{path}: it has expired; issue it again with `logfwd pki issue --delegates`")
    return leaf


def _signer(path: Path) -> KeySigner:
    try:
        return KeySigner(serialization.load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a key that signs: {error}") from error
