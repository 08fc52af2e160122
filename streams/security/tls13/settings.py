"""The settings of one side, and the protocol of every way to authenticate."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from streams.security.tls13.certificates import Trust
from streams.security.tls13.groups import GROUPS, KeyPair
from streams.security.tls13.handshake import Handshake


class ClientHalf(Protocol):
    """The rest of a client's handshake, after EncryptedExtensions."""

    def begin(self) -> None:
        """Declare which messages may come next."""


class ServerHalf(Protocol):
    """A server's side of authentication."""

    def judge(self, offered: Mapping[int, bytes]) -> None:
        """Look at a ClientHello's extensions; raises Abort if there is no way to authenticate."""

    def begin(self) -> None:
        """Go on after our EncryptedExtensions."""


class Authentication(Protocol):
    """One way to authenticate, the same on both sides; one file each."""

    def offered(self) -> dict[int, bytes]:
        """The extensions that announce it in a ClientHello and a CertificateRequest."""

    def client(self, shake: Handshake, settings: Settings, host: str) -> ClientHalf: ...
    def server(self, shake: Handshake, settings: Settings) -> ServerHalf: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a side offers or accepts, by TLS's code points, best first."""

    groups: tuple[int, ...]
    suites: tuple[int, ...]
    authentication: Authentication
    trust: Trust
    alpn: bytes | None = None
    """The protocol to agree on; None if it does not matter."""
    alpn_required: bool = True
    """Without it, a server accepts clients that offer no protocol, or only others."""
    shares: tuple[int, ...] = ()
    """A client sends key shares for these at once; the first group if there are none."""
    ask_client: bool = True
    """A server asks for a client certificate, and accepts no client without one."""


class Chance(msgspec.Struct, frozen=True):
    """Where randomness and ephemeral keys come from; tests bring those of published traces."""

    bytes: Callable[[int], bytes] = secrets.token_bytes
    pair: Callable[[int], KeyPair] = lambda group: GROUPS[group].generate()


def pick(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Our first choice among the peer's."""
    return next((one for one in ours if one in theirs), None)
