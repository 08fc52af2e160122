"""Named security modes: what a stream demands, as data. The only place where a mode is looked at.

The user says what they need, never algorithm lists. A mode is a TLS version, the key-exchange groups a client offers
and a server takes, and the signature algorithms. Both ends check what was negotiated after the handshake and before
the first byte of data; nothing ever falls back because something failed.

OpenSSL's group lists: `*` marks a group whose key share the client sends at once; `/` separates preference tiers, so
that a server asks again for the better group instead of taking the share that happens to be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from streams.errors import PolicyViolation

TLS12, TLS13 = "TLSv1.2", "TLSv1.3"

X25519 = "X25519"
P256 = "secp256r1"
X25519MLKEM768 = "X25519MLKEM768"
SECP256R1MLKEM768 = "SecP256r1MLKEM768"

_SPELLING = {name.lower(): name for name in (X25519, P256, X25519MLKEM768, SECP256R1MLKEM768)} | {
    "prime256v1": P256,
    "p-256": P256,
}
ECDSA = "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384"


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One named mode. `groups` are spelled as IANA does, best first; `client_groups` is OpenSSL's list."""

    name: str
    version: str
    groups: tuple[str, ...]
    client_groups: str
    signature_algorithms: str = ECDSA


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            name="classical-tls12",
            version=TLS12,
            groups=(P256,),
            client_groups="P-256",
        ),
        Mode(
            name="classical",
            version=TLS13,
            groups=(X25519,),
            client_groups="X25519",
        ),
        Mode(
            name="hybrid",
            version=TLS13,
            groups=(X25519MLKEM768,),
            client_groups="X25519MLKEM768",
        ),
        Mode(
            name="hybrid-preferred",
            version=TLS13,
            groups=(X25519MLKEM768, X25519),
            client_groups="*X25519MLKEM768:*X25519",
        ),
        Mode(
            name="hybrid-p256",
            version=TLS13,
            groups=(SECP256R1MLKEM768,),
            client_groups="SecP256r1MLKEM768",
        ),
    )
}

_BEST_FIRST = (X25519MLKEM768, SECP256R1MLKEM768, X25519, P256)
_HYBRID = frozenset({X25519MLKEM768, SECP256R1MLKEM768})


class Negotiated(Protocol):
    """What a handshake gave."""

    @property
    def version(self) -> str: ...
    @property
    def group(self) -> str: ...


class ListenerSettings(msgspec.Struct, frozen=True):
    """What a listener offers that serves several modes: the union, best group first."""

    min_version: str
    max_version: str
    groups: str
    signature_algorithms: str


def canonical_group(name: str) -> str:
    """A group's name as IANA spells it, however a library does; an unknown one stays as it is."""
    return _SPELLING.get(name.lower(), name)


def check(mode: Mode, facts: Negotiated) -> None:
    """Raise PolicyViolation if a handshake gave anything but what the mode demands."""
    if facts.version != mode.version or canonical_group(facts.group) not in mode.groups:
        raise PolicyViolation(
            f"mode {mode.name} demands {mode.version} with {' or '.join(mode.groups)}, "
            f"the link has {facts.version} with {facts.group}"
        )


def is_downgrade(mode: Mode, group: str) -> bool:
    """True where a mode with a choice got less than its first choice."""
    return canonical_group(group) != mode.groups[0]


def listener_settings(modes: Iterable[Mode]) -> ListenerSettings:
    """The union of what modes need; hybrid groups stand in a tier of their own before the classical ones."""
    served = list(modes)
    groups = {group for mode in served for group in mode.groups}
    ordered = [group for group in _BEST_FIRST if group in groups]
    tiers = [[group for group in ordered if group in _HYBRID], [group for group in ordered if group not in _HYBRID]]
    versions = sorted({mode.version for mode in served})
    algorithms = dict.fromkeys(name for mode in served for name in mode.signature_algorithms.split(":"))
    return ListenerSettings(
        versions[0],
        versions[-1],
        " / ".join(":".join("P-256" if group == P256 else group for group in tier) for tier in tiers if tier),
        ":".join(algorithms),
    )
