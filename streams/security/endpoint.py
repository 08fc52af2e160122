"""What every TLS stack offers: an endpoint without I/O, and a party that makes endpoints. Imports no stack.

`transport.py` and `listener.py` drive any `Endpoint`; `stacks.py` knows which stack serves which mode.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import msgspec

ALPN = b"logfwd/1"


class Files(msgspec.Struct, frozen=True):
    """PEM files of one party: its leaf with intermediates, the leaf's key, and the CA it trusts."""

    section: ClassVar[str] = "tls"
    """The section of a configuration that names these files, for error messages."""
    authority_kind: ClassVar[str] = "ec"
    leaf_kind: ClassVar[str] = "ec"
    """The kinds of key (`pki.py`) that `logfwd pki init` and `issue` make for this section."""

    certificate: Path
    key: Path
    ca: Path

    @property
    def stands_for(self) -> str:
        """The section that modes name, where it is another one: these files are used in its place."""
        return ""

    @property
    def kinds(self) -> tuple[str, str]:
        """The kinds of key of the authority and of the leaf."""
        return self.authority_kind, self.leaf_kind

    def paths(self) -> tuple[Path, ...]:
        """Every file, to see whether one has changed."""
        return (self.certificate, self.key, self.ca)


class PostQuantumFiles(Files, frozen=True):
    """Files for modes that demand post-quantum authentication: links have no use for others."""

    authority_kind: ClassVar[str] = "mldsa65"

    allow_classical_chain: bool = False
    """Whether the certificates above a peer's leaf, and our own, may be signed with anything."""


class MlDsaFiles(PostQuantumFiles, frozen=True):
    """Those with ML-DSA keys throughout."""

    section: ClassVar[str] = "tls.mldsa"
    leaf_kind: ClassVar[str] = "mldsa65"


class KeyPair(msgspec.Struct, frozen=True):
    """A leaf and its key."""

    certificate: Path
    key: Path


class MlKemFiles(PostQuantumFiles, frozen=True):
    """A leaf with an ML-KEM key, below an authority with ML-DSA keys."""

    section: ClassVar[str] = "tls.mlkem"
    leaf_kind: ClassVar[str] = "mlkem768"

    stored_keys: tuple[Path, ...] = ()
    """A forwarder's: the keys of receivers (`stored_keys.py`)."""
    previous: Sequence[KeyPair] = ()
    """A receiver's: leaves whose keys forwarders may still have stored."""

    def paths(self) -> tuple[Path, ...]:
        pairs = [path for pair in self.previous for path in (pair.certificate, pair.key)]
        return (*super().paths(), *self.stored_keys, *pairs)


DelegatedKind = Literal["ec", "mldsa65", "mlkem768"]


class DelegatedFiles(PostQuantumFiles, frozen=True):
    """A leaf that signs, and a file with a key that it has delegated to; in place of the section for such keys."""

    section: ClassVar[str] = "tls.delegated"

    kind: DelegatedKind = "mlkem768"
    """Of the delegated key."""

    @property
    def stands_for(self) -> str:
        return {"ec": Files, "mldsa65": MlDsaFiles, "mlkem768": MlKemFiles}[self.kind].section

    @property
    def kinds(self) -> tuple[str, str]:
        return ("ec", "ec") if self.kind == "ec" else ("mldsa65", "mldsa65")


class HasFiles(Protocol):
    """All files of one party; `Mode.section` says which of them a mode uses."""

    @property
    def accept_delegated(self) -> bool:
        """Whether peers may show delegated credentials in the modes with signatures, which OpenSSL does not know."""

    def sections(self) -> Sequence[Files]:
        """The files of each section that there is."""


class Credentials(Files, frozen=True):
    """All files of a party that has classical ones."""

    mldsa: MlDsaFiles | None = None
    mlkem: MlKemFiles | None = None
    delegated: DelegatedFiles | None = None
    accept_delegated: bool = False

    def sections(self) -> Sequence[Files]:
        return [each for each in (self, self.mldsa, self.mlkem, self.delegated) if each is not None]


class CertificateId(NamedTuple):
    """Names a certificate: its issuer's name (DER), and the number that the issuer gave it."""

    issuer: bytes
    serial: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a handshake negotiated and what it cost. The TCP connect is not part of bytes and handshake seconds."""

    version: str
    group: str
    """As IANA spells it; so is `authentication`."""
    cipher: str
    identities: tuple[str, ...]
    authentication: str = "none"
    """The weakest of the algorithm that the peer proved its key with and those that its chain is signed with."""
    certificate_expires: datetime.datetime | None = None
    certificates: tuple[CertificateId, ...] = ()
    """The peer's verified chain without its root, its own first; empty for one that shows none."""
    certificate_algorithm: str = "none"
    """Of the key in the peer's certificate, or of the one stored beforehand."""
    stack: str = "openssl"
    """The TLS implementation; "tls13" is our own, which is experimental."""
    handshake_seconds: float = 0.0
    connect_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def expires(self) -> float | None:
        """When the peer's certificate expires, in seconds since the epoch."""
        return None if self.certificate_expires is None else self.certificate_expires.timestamp()

    def log_fields(self) -> dict[str, object]:
        """The fields with which both ends log every handshake."""
        return {
            "version": self.version,
            "group": self.group,
            "cipher": self.cipher,
            "authentication": self.authentication,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "milliseconds": round(self.handshake_seconds * 1e3, 3),
        }


class Endpoint(Protocol):
    """One side of one TLS connection: ciphertext in and out, plaintext in and out, no I/O.

    The owner sends what `take` returns after every other call. HandshakeFailed and LinkError are the only errors.
    """

    @property
    def renews_keys(self) -> bool:
        """Whether it changes keys in time by itself; else the link has to be replaced for that."""

    @property
    def has_records(self) -> bool:
        """Whether what arrives consists of TLS records."""

    @property
    def complete(self) -> bool:
        """Whether the handshake is over."""

    def handshake(self) -> bool:
        """Continue the handshake; True when it is complete. Raises HandshakeFailed; `take` then has the alert."""

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        """What the handshake negotiated; for one that failed, what was agreed on and spent so far."""

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        """Accept bytes from the peer. Their memory has to stay as it is until `read` returns b"" or None."""

    def feed_eof(self) -> None:
        """The peer's bytes have ended."""

    def take(self) -> list[bytes | bytearray]:
        """Bytes to send to the peer."""

    def read(self) -> bytes | None:
        """Available plaintext; b"" if there is none yet; None after the peer's close_notify. Raises LinkError."""

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        """Encrypt; `take` returns the result. Raises LinkError."""

    def close(self) -> None:
        """Say goodbye; `take` returns the close_notify."""


class Party(Protocol):
    """One side's loaded files and the modes it may use: makes an endpoint for each connection."""

    @property
    def expires(self) -> datetime.datetime:
        """When the certificate that its links show expires."""

    @property
    def delegated_until(self) -> datetime.datetime | None:
        """When the delegated credential that they show expires; None without one."""

    def endpoint(self, host: str | None = None) -> Endpoint:
        """An endpoint for a new connection; a connecting side gives the name that the server must prove.

        ValueError if `host` cannot be the name of a host.
        """
