"""Parties over this TLS 1.3, which `stacks.py` makes for the modes of this stack."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from streams.errors import ConfigError, Problem
from streams.security.chains import host_of, led_to, refused
from streams.security.endpoint import ALPN, Files
from streams.security.modes import TLS13, Mode
from streams.security.tls13.alerts import Abort
from streams.security.tls13.certificates import Trust, now
from streams.security.tls13.client import Client
from streams.security.tls13.endpoint import Tls13Endpoint
from streams.security.tls13.groups import GROUP_CODES
from streams.security.tls13.handshake import KeyLog
from streams.security.tls13.kem import KEM_CODES, KemKey, kem_of
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.pdk import PdkAuthentication, PdkClient, PdkServer
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.schemes import CHAIN_SCHEMES, SCHEME_CODES, KeySigner
from streams.security.tls13.server import Server
from streams.security.tls13.settings import Authentication, Settings
from streams.security.tls13.signature import Credential, Signature
from streams.security.tls13.suites import SUITES


class Tls13Party:
    """Makes endpoints that all show the same certificate; an `accepting` party waits for the peer's ClientHello."""

    def __init__(
        self,
        settings: Settings,
        expires: datetime.datetime,
        *,
        accepting: bool,
        key_log: KeyLog | None = None,
    ) -> None:
        self.settings, self.expires = settings, expires
        self._accepting, self._key_log = accepting, key_log

    def endpoint(self, host: str | None = None) -> Tls13Endpoint:
        """An endpoint for a new connection. ValueError for a connecting one without a usable name of its server."""
        reader, writer = RecordReader(), RecordWriter()
        stored = isinstance(self.settings.authentication, PdkAuthentication)
        side: Client | Server
        if self._accepting:
            side = (PdkServer if stored else Server)(self.settings, reader, writer, key_log=self._key_log)
        else:
            if host is None:
                raise ValueError("a connecting party must name the server")
            sni, name = self.settings.trust.names_of(host)
            make = PdkClient if stored else Client
            side = make(self.settings, reader, writer, host=name, sni=sni, key_log=self._key_log)
        return Tls13Endpoint(side, reader, writer)


def client(mode: Mode, files: Files, *, key_log: Path | None = None) -> Tls13Party:
    """Connects in exactly one mode. `key_log` gets the TLS secrets of its links (SSLKEYLOGFILE's format)."""
    keys = None if key_log is None else _KeyLog(key_log)
    return _party([mode], load(files), accepting=False, key_log=keys)


def foreign(mode: Mode, files: Files) -> Tls13Party:
    """Connects to servers that do not speak our protocol: without ALPN."""
    return _party([mode], load(files), accepting=False, alpn=None)


def server(modes: Iterable[Mode], *files: Files) -> Tls13Party:
    """Accepts links in any of several modes, best group first; `files` has those of every mode, each once."""
    return _party(list(modes), load(*files), accepting=True)


def foreign_server(
    modes: Iterable[Mode], section: str, certificate: Path, key: Path, ca: Path | None, alpn: bytes
) -> Tls13Party:
    """Accepts clients that do not speak our protocol: `alpn` if they offer it; a certificate is asked for with `ca`."""
    credential, expires = _read_credential(section, certificate, key)
    roots = _read(ca, section, "ca", x509.load_pem_x509_certificates) if ca is not None else []
    made = _party(list(modes), Loaded((credential,), Trust(roots), expires), accepting=True, alpn=alpn)
    made.settings = msgspec.structs.replace(made.settings, alpn_required=False, ask_client=ca is not None)
    return made


def check(files: Files) -> None:
    """Raise ConfigError for files that no link could use."""
    load(files)


def verify(files: Files, *, accepting: bool) -> Iterator[Problem]:
    """Why peers with this stack would refuse our certificate; one that another CA has issued is left to them."""
    chain = _read(files.certificate, files.section, "certificate", x509.load_pem_x509_certificates)
    roots = _read(files.ca, files.section, "ca", x509.load_pem_x509_certificates)
    host = host_of(chain[0]) if accepting else None
    if not led_to(chain, roots) or (accepting and host is None):
        return
    ders = [one.public_bytes(serialization.Encoding.DER) for one in chain]
    try:
        Trust(roots).verify(ders, None if host is None else str(host.value))
    except Abort as error:
        yield refused(files, error.text.removeprefix("peer's certificate: "))


class Loaded(msgspec.Struct, frozen=True):
    """A party's files, read."""

    credentials: tuple[Credential | KemCredential, ...]
    trust: Trust
    expires: datetime.datetime
    """When the first of the leaves expires."""


def load(*files: Files, clock: Callable[[], datetime.datetime] = now) -> Loaded:
    """Read a party's PEM files; ConfigError names the file and what is wrong with it."""
    found = [_read_credential(each.section, each.certificate, each.key) for each in files]
    roots = [_read(each.ca, each.section, "ca", x509.load_pem_x509_certificates) for each in files]
    trust = Trust([root for some in roots for root in some], clock=clock)
    return Loaded(tuple(credential for credential, _ in found), trust, min(expires for _, expires in found))


def _party(
    modes: list[Mode], loaded: Loaded, *, accepting: bool, alpn: bytes | None = ALPN, key_log: KeyLog | None = None
) -> Tls13Party:
    groups = {group for mode in modes for group in mode.groups}
    if any(mode.version != TLS13 for mode in modes) or not groups <= GROUP_CODES.keys():
        raise ValueError("this stack speaks TLS 1.3 alone, with the groups in groups.py")
    codes = tuple(code for name, code in GROUP_CODES.items() if name in groups)
    settings = Settings(
        groups=codes,
        shares=codes,
        suites=tuple(SUITES),
        authentication=_authentication(modes, loaded.credentials),
        trust=loaded.trust,
        alpn=alpn,
    )
    return Tls13Party(settings, loaded.expires, accepting=accepting, key_log=key_log)


def _authentication(modes: list[Mode], credentials: Sequence[Credential | KemCredential]) -> Authentication:
    """By KEM if the modes name one, with the schemes that they accept in chains; else by signature."""
    accepted = dict.fromkeys(name for mode in modes for name in (*mode.authentication, *mode.chains))
    schemes = chains = tuple(SCHEME_CODES[name] for name in accepted if name in SCHEME_CODES)
    if any(mode.classical_chain for mode in modes):
        chains = tuple(CHAIN_SCHEMES)
    kems = tuple(KEM_CODES[name] for name in accepted if name in KEM_CODES)
    by_kem = [each for each in credentials if isinstance(each, KemCredential)]
    by_signature = [each for each in credentials if isinstance(each, Credential)]
    if kems and len(by_kem) == len(credentials) == 1:
        return KemAuthentication(kems, chains, by_kem[0])
    if not kems and not by_kem:
        first, *others = by_signature
        return Signature(schemes, first, alternatives=tuple(others))
    names = ", ".join(mode.name for mode in modes)
    raise ValueError(f"the certificate's key is not of the kind that {names} authenticates with")


def _read_credential(
    section: str, certificate: Path, key: Path
) -> tuple[Credential | KemCredential, datetime.datetime]:
    """A leaf with its chain and key, and when the leaf expires."""
    chain = _read(certificate, section, "certificate", x509.load_pem_x509_certificates)
    private = _read(key, section, "key", lambda data: serialization.load_pem_private_key(data, None))
    ders = tuple(one.public_bytes(serialization.Encoding.DER) for one in chain)
    try:
        matches = private.public_key() == chain[0].public_key()
        kem = kem_of(private.public_key()) is not None
        found = KemCredential(ders, KemKey(private)) if kem else Credential(ders, KeySigner(private))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError([Problem(key, f"{section}.key", f"cannot be used: {error}")]) from error
    if not matches:
        raise ConfigError([Problem(key, f"{section}.key", "is not the certificate's key")])
    return found, chain[0].not_valid_after_utc


def _read(path: Path, section: str, key: str, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError([Problem(path, f"{section}.{key}", f"cannot be used: {error}")]) from error


class _KeyLog:
    """Secrets for a packet analyser, in the format that browsers made common; only by an explicit flag, 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, label: str, client_random: bytes, secret: bytes) -> None:
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
            out.write(f"{label} {client_random.hex()} {secret.hex()}\n".encode())
