"""Parties over this TLS 1.3, which `stacks.py` makes for the modes of this stack."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from streams.errors import ConfigError, Problem
from streams.files import append_secret
from streams.security import stored_keys
from streams.security.chains import host_of, led_to, refused
from streams.security.endpoint import ALPN, DelegatedFiles, Files, MlKemFiles
from streams.security.modes import TLS13, Mode
from streams.security.private_keys import refuse_encrypted
from streams.security.tls13 import delegated_files
from streams.security.tls13.alerts import Abort
from streams.security.tls13.certificates import Trust, now
from streams.security.tls13.client import Client
from streams.security.tls13.delegated import CLIENT, SERVER, Delegated
from streams.security.tls13.endpoint import Tls13Endpoint
from streams.security.tls13.groups import GROUP_CODES
from streams.security.tls13.handshake import KeyLog
from streams.security.tls13.kem import KEM_CODES, KemKey, kem_of
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.pdk import PdkAuthentication, PdkClient, PdkServer, ServerKey, StoredKey, fingerprint
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.schemes import CHAIN_SCHEMES, SCHEME_CODES, KeySigner
from streams.security.tls13.server import Server
from streams.security.tls13.settings import Authentication, Settings
from streams.security.tls13.signature import Credential, Signature
from streams.security.tls13.suites import SUITES

PDK_SUITE = 0x1301
"""TLS_AES_128_GCM_SHA256: a client with a stored key offers one suite, since it needs the hash at once."""


class Tls13Party:
    """Makes endpoints that all show the same certificate; an `accepting` party waits for the peer's ClientHello."""

    def __init__(
        self,
        settings: Settings,
        expires: datetime.datetime,
        *,
        accepting: bool,
        key_log: KeyLog | None = None,
        stored: Sequence[StoredKey] = (),
    ) -> None:
        """`stored`: the keys of servers from which a client with stored keys takes the one for each connection."""
        self.settings, self.expires = settings, expires
        self._accepting, self._key_log = accepting, key_log
        self._stored = stored

    @property
    def delegated_until(self) -> datetime.datetime | None:
        """When the delegated credential that its links show expires; None without one."""
        way = self.settings.authentication
        held: list[Credential | KemCredential | None] = []
        if isinstance(way, KemAuthentication | Signature):
            held.append(way.credential)
        if isinstance(way, Signature):
            held += way.alternatives
        return min((each.delegated.until for each in held if each and each.delegated), default=None)

    def endpoint(self, host: str | None = None) -> Tls13Endpoint:
        """An endpoint for a new connection. ValueError for a connecting one without a usable name of its server."""
        reader, writer, settings = RecordReader(), RecordWriter(), self.settings
        way = settings.authentication
        side: Client | Server
        if self._accepting:
            make_server = PdkServer if isinstance(way, PdkAuthentication) else Server
            side = make_server(settings, reader, writer, key_log=self._key_log)
        else:
            if host is None:
                raise ValueError("a connecting party must name the server")
            sni, name = settings.trust.names_of(host)
            if self._stored and isinstance(way, PdkAuthentication):
                way = msgspec.structs.replace(way, stored=newest(self._stored, name))
                settings = msgspec.structs.replace(settings, authentication=way)
            make_client = PdkClient if isinstance(way, PdkAuthentication) else Client
            side = make_client(settings, reader, writer, host=name, sni=sni, key_log=self._key_log)
        return Tls13Endpoint(side, reader, writer)


def newest(stored: Sequence[StoredKey], host: str) -> StoredKey:
    """The key for a host that lasts longest; without one, any, which the client then refuses with its names."""
    return max(stored, key=lambda each: (host in each.names, each.until))


def client(mode: Mode, files: Files, *, key_log: Path | None = None) -> Tls13Party:
    """Connects in exactly one mode. `key_log` gets the TLS secrets of its links (SSLKEYLOGFILE's format)."""
    keys = None if key_log is None else _KeyLog(key_log)
    stored = load_stored(files) if mode.stored_key else []
    return _party([mode], load(files, sides=(CLIENT,)), accepting=False, key_log=keys, stored=stored)


def foreign(mode: Mode, files: Files) -> Tls13Party:
    """Connects to servers that do not speak our protocol: without ALPN."""
    return _party([mode], load(files), accepting=False, alpn=None)


def server(modes: Iterable[Mode], *files: Files) -> Tls13Party:
    """Accepts links in any of several modes, best group first; `files` has those of every mode, each once."""
    together, loaded = list(modes), load(*files, sides=(SERVER,))
    keys = server_keys(files[0], loaded) if any(mode.stored_key for mode in together) else {}
    return _party(together, loaded, accepting=True, keys=keys)


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
    _previous(files)
    for path in files.stored_keys if isinstance(files, MlKemFiles) else ():
        stored_keys.read(path, files.section)


def verify(files: Files, *, accepting: bool) -> Iterator[Problem]:
    """Why peers with this stack would refuse our certificate; one that another CA has issued is left to them."""
    if isinstance(files, MlKemFiles):
        for path in files.stored_keys:
            if (until := stored_keys.read(path, files.section).until) < now():
                text = f"has expired at {until:%Y-%m-%dT%H:%M:%SZ}; remove it, and {stored_keys.REMEDY} again"
                yield Problem(path, f"{files.section}.stored_keys", text)
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


def load(
    *files: Files, sides: Sequence[str] = (SERVER, CLIENT), clock: Callable[[], datetime.datetime] = now
) -> Loaded:
    """Read a party's PEM files; ConfigError names the file and what is wrong with it.

    `sides`: in which roles a delegated credential may be.
    """
    found = [
        _read_delegated(each, sides)
        if isinstance(each, DelegatedFiles)
        else _read_credential(each.section, each.certificate, each.key)
        for each in files
    ]
    roots = [_read(each.ca, each.section, "ca", x509.load_pem_x509_certificates) for each in files]
    trust = Trust([root for some in roots for root in some], clock=clock)
    return Loaded(tuple(credential for credential, _ in found), trust, min(expires for _, expires in found))


def load_stored(files: Files) -> list[StoredKey]:
    """The keys of servers that a client has stored; ConfigError if it has none, or names the file that is wrong."""
    paths = files.stored_keys if isinstance(files, MlKemFiles) else ()
    if not paths:
        text = f"is missing: the keys of servers; {stored_keys.REMEDY}"
        raise ConfigError([Problem(files.certificate, f"{files.section}.stored_keys", text)])
    found = [stored_keys.read(path, files.section) for path in paths]
    return [StoredKey(each.spki, each.names, each.until) for each in found]


def server_keys(files: Files, loaded: Loaded) -> dict[bytes, ServerKey]:
    """The keys that clients may have stored, each until its certificate expires, by fingerprint."""
    present = [(each, loaded.expires) for each in loaded.credentials if isinstance(each, KemCredential)]
    return {fingerprint(_spki(each)): ServerKey(each.key, until) for each, until in present + _previous(files)}


def _previous(files: Files) -> list[tuple[KemCredential, datetime.datetime]]:
    """Leaves that were replaced, and when each expires."""
    section, found = f"{files.section}.previous", []
    for pair in files.previous if isinstance(files, MlKemFiles) else ():
        credential, until = _read_credential(section, pair.certificate, pair.key)
        if not isinstance(credential, KemCredential):
            text = "its key is not of a KEM, so no forwarder can have stored it: remove the pair"
            raise ConfigError([Problem(pair.certificate, f"{section}.certificate", text)])
        found.append((credential, until))
    return found


def _spki(credential: KemCredential) -> bytes:
    key = x509.load_der_x509_certificate(credential.chain[0]).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _party(
    modes: list[Mode],
    loaded: Loaded,
    *,
    accepting: bool,
    alpn: bytes | None = ALPN,
    key_log: KeyLog | None = None,
    stored: Sequence[StoredKey] = (),
    keys: Mapping[bytes, ServerKey] | None = None,
) -> Tls13Party:
    groups = {group for mode in modes for group in mode.groups}
    if any(mode.version != TLS13 for mode in modes) or not groups <= GROUP_CODES.keys():
        raise ValueError("this stack speaks TLS 1.3 alone, with the groups in groups.py")
    codes = tuple(code for name, code in GROUP_CODES.items() if name in groups)
    way = _authentication(modes, loaded.credentials)
    by_stored_key = any(mode.stored_key for mode in modes)
    if isinstance(way, KemAuthentication) and by_stored_key:
        plain = msgspec.structs.replace(way, delegated_kems=(), delegation_schemes=())
        way = PdkAuthentication(plain, keys=keys or {})
    settings = Settings(
        groups=codes,
        shares=codes,
        suites=(PDK_SUITE,) if by_stored_key else tuple(SUITES),
        authentication=way,
        trust=loaded.trust,
        alpn=alpn,
    )
    return Tls13Party(settings, loaded.expires, accepting=accepting, key_log=key_log, stored=stored)


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
        return KemAuthentication(kems, chains, by_kem[0], delegated_kems=kems, delegation_schemes=schemes)
    if not kems and not by_kem:
        first, *others = by_signature
        return Signature(schemes, first, delegated_schemes=schemes, alternatives=tuple(others))
    names = ", ".join(mode.name for mode in modes)
    raise ValueError(f"the certificate's key is not of the kind that {names} authenticates with")


def _read_credential(
    section: str, certificate: Path, key: Path
) -> tuple[Credential | KemCredential, datetime.datetime]:
    """A leaf with its chain and key, and when the leaf expires."""
    chain = _read(certificate, section, "certificate", x509.load_pem_x509_certificates)
    refuse_encrypted(key, section)
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


_DELEGATED = {"ec": "ecdsa_secp256r1_sha256", "mldsa65": "mldsa65", "mlkem768": "ML-KEM-768"}
"""The scheme or KEM of each kind of delegated key."""


def _read_delegated(
    files: DelegatedFiles, sides: Sequence[str]
) -> tuple[Credential | KemCredential, datetime.datetime]:
    """A leaf with its chain, and the key that it has delegated to; when the leaf expires."""
    section = files.section
    leaf, *others = _read(files.certificate, section, "certificate", x509.load_pem_x509_certificates)
    data = _read(files.key, section, "key", bytes)
    private = _read(files.key, section, "key", lambda data: serialization.load_pem_private_key(data, None))
    ders = tuple(one.public_bytes(serialization.Encoding.DER) for one in (leaf, *others))
    try:
        found = delegated_files.read(data, leaf, private.public_key(), sides)
        if found.scheme != (SCHEME_CODES | KEM_CODES)[_DELEGATED[files.kind]]:
            raise ValueError(f"its key is not of the kind {files.kind}, which {section}.kind says")
        made = _delegated_credential(ders, private, found)
    except ValueError as error:
        role = " or ".join("receiver" if side == SERVER else "forwarder" for side in sides)
        text = f"cannot be used: {error}; make it again with `logfwd pki delegate --role {role} --key {files.kind}`"
        raise ConfigError([Problem(files.key, f"{section}.key", text)]) from error
    return made, leaf.not_valid_after_utc


def _delegated_credential(chain: tuple[bytes, ...], key: Any, found: Delegated) -> Credential | KemCredential:
    if kem_of(key.public_key()) is not None:
        return KemCredential(chain, KemKey(key), found)
    return Credential(chain, None, found, KeySigner(key))


def _read(path: Path, section: str, key: str, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError([Problem(path, f"{section}.{key}", f"cannot be used: {error}")]) from error


class _KeyLog:
    """Secrets for a packet analyser, in the format that browsers made common; only by an explicit flag, 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        append_secret(path, b"")

    def __call__(self, label: str, client_random: bytes, secret: bytes) -> None:
        append_secret(self._path, f"{label} {client_random.hex()} {secret.hex()}\n".encode())
