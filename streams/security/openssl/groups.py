"""Modes in OpenSSL's own list syntax, and OpenSSL's spelling of groups in IANA's.

In a list of groups (SSL_CTX_set1_groups_list(3)), `*` marks a group whose key share a client sends at once, and `/`
separates tiers of preference, so that a server asks for the better group instead of taking the share that is there.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streams.security.modes import HYBRID_GROUPS, P256, SECP256R1MLKEM768, X25519, X25519MLKEM768, Mode

_BEST_FIRST = (X25519MLKEM768, SECP256R1MLKEM768, X25519, P256)
_IANA = {name.lower(): name for name in _BEST_FIRST} | {"prime256v1": P256, "p-256": P256}


class Settings(msgspec.Struct, frozen=True):
    """What a context is set to; `groups` and `signature_algorithms` are OpenSSL's lists."""

    min_version: str
    max_version: str
    groups: str
    signature_algorithms: str


def client_settings(mode: Mode) -> Settings:
    """One mode; where it has several groups, the client sends a key share of each."""
    names = [_openssl(group) for group in mode.groups]
    groups = names[0] if len(names) == 1 else ":".join(f"*{name}" for name in names)
    return Settings(mode.version, mode.version, groups, ":".join(mode.authentication))


def listener_settings(modes: Iterable[Mode]) -> Settings:
    """The union of several modes; hybrid groups stand in a tier of their own before the classical ones."""
    served = list(modes)
    groups = {group for mode in served for group in mode.groups}
    ordered = [group for group in _BEST_FIRST if group in groups]
    tiers = [[group for group in ordered if (group in HYBRID_GROUPS) is hybrid] for hybrid in (True, False)]
    versions = sorted({mode.version for mode in served})
    algorithms = dict.fromkeys(name for mode in served for name in mode.authentication)
    return Settings(
        versions[0],
        versions[-1],
        " / ".join(":".join(map(_openssl, tier)) for tier in tiers if tier),
        ":".join(algorithms),
    )


def canonical_group(name: str) -> str:
    """A group's name as IANA spells it; one that is not known here is returned unchanged."""
    return _IANA.get(name.lower(), name)


def _openssl(group: str) -> str:
    return "P-256" if group == P256 else group
