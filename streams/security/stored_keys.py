"""Keys of receivers, distributed to forwarders before their first link: what mode kemtls-pdk has instead of a chain.

A file holds one, in TOML:

    names = ["logs.example.net", "10.0.0.7"]
    until = 2026-06-30T12:00:00Z
    key = '''
    -----BEGIN PUBLIC KEY-----
    ...
    '''

A forwarder trusts it as it trusts a CA: whoever can replace the file can be the receiver.
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mlkem

from streams.errors import ConfigError, Problem
from streams.files import create_file
from streams.security.pki import PkiError

MAX_FILE_BYTES = 64 * 1024
REMEDY = "make it with `logfwd pki pdk`"


class StoredKeyFile(msgspec.Struct, frozen=True):
    """The content of a file. `names` are the receiver's host names and addresses."""

    names: tuple[str, ...]
    until: datetime.datetime
    """No handshake begins after this; the receiver knows the key for as long."""
    key: Any

    def encode(self) -> str:
        names = ", ".join(f'"{name}"' for name in self.names)
        pem = self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return (
            "# Receiver's key for mode kemtls-pdk (experimental), made by `logfwd pki pdk`. Not secret, but trusted.\n"
            f"names = [{names}]\nuntil = {self.until:%Y-%m-%dT%H:%M:%SZ}\nkey = '''\n{pem.decode()}'''\n"
        )

    @property
    def spki(self) -> bytes:
        """The key as DER; its hash is what the forwarder names it by."""
        der: bytes = self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return der


def of(certificate: x509.Certificate) -> StoredKeyFile:
    """The key in a receiver's certificate, until that expires. ValueError if it is of another kind, or has no host."""
    key = certificate.public_key()
    if not isinstance(key, mlkem.MLKEM768PublicKey):
        raise ValueError("its key is not ML-KEM-768: issue it with `logfwd pki issue --key mlkem768`")
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found = x509.SubjectAlternativeName([])
    hosts = found.get_values_for_type(x509.DNSName)
    names = [*(name for name in hosts if "*" not in name), *map(str, found.get_values_for_type(x509.IPAddress))]
    if not names:
        raise ValueError("it names no host or address: issue it with --host")
    return StoredKeyFile(tuple(names), certificate.not_valid_after_utc, key)


def store(certificate: Path, out: Path, *, force: bool = False) -> StoredKeyFile:
    """Write the key in a receiver's certificate to a file for forwarders."""
    try:
        found = of(x509.load_pem_x509_certificate(certificate.read_bytes()))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{certificate}: no key to distribute: {error}") from error
    try:
        create_file(out, found.encode().encode(), mode=0o644, replace=force)
    except FileExistsError as error:
        raise PkiError(f"{out} exists; use --force to replace it") from error
    except OSError as error:
        raise PkiError(f"{out} cannot be written: {error}") from error
    return found


def read(path: Path, section: str) -> StoredKeyFile:
    """The content of a file; ConfigError says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        return _parse(data)
    except (OSError, ValueError, RecursionError, UnsupportedAlgorithm) as error:
        raise ConfigError([Problem(path, f"{section}.stored_keys", f"cannot be used: {error}; {REMEDY}")]) from error


def _parse(data: bytes) -> StoredKeyFile:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError("is larger than 64 KiB")
    table = tomllib.loads(data.decode())
    names, until, pem = table.get("names"), table.get("until"), table.get("key")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("names is not a list of names")
    if not isinstance(until, datetime.datetime) or until.tzinfo is None:
        raise ValueError("until is not a time with its zone")
    if not isinstance(pem, str):
        raise ValueError("key is missing")
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, mlkem.MLKEM768PublicKey):
        raise ValueError("key is not an ML-KEM-768 key")
    return StoredKeyFile(tuple(names), until, key)
