"""Modes are data: what each demands, and what a listener offers that serves several."""

from __future__ import annotations

import msgspec
import pytest

from streams.errors import PolicyViolation
from streams.security import modes
from streams.security.endpoint import Facts
from streams.security.openssl import groups


def got(version: str, group: str, authentication: str = "ecdsa_secp256r1_sha256") -> Facts:
    return Facts(version=version, group=group, cipher="TLS_X", identities=(), authentication=authentication)


@pytest.mark.parametrize(
    ("mode", "version", "group", "enough"),
    [
        ("classical-tls12", "TLSv1.2", "secp256r1", True),
        ("classical-tls12", "TLSv1.3", "secp256r1", False),
        ("classical", "TLSv1.3", "X25519", True),
        ("classical", "TLSv1.3", "X25519MLKEM768", False),
        ("hybrid", "TLSv1.3", "X25519MLKEM768", True),
        ("hybrid", "TLSv1.3", "X25519", False),
        ("hybrid", "TLSv1.2", "X25519MLKEM768", False),
        ("hybrid", "TLSv1.3", "SecP256r1MLKEM768", False),
        ("hybrid-preferred", "TLSv1.3", "X25519", True),
        ("hybrid-preferred", "TLSv1.3", "secp256r1", False),
        ("hybrid-p256", "TLSv1.3", "SecP256r1MLKEM768", True),
    ],
)
def test_a_handshake_is_enough_for_a_mode_or_refused(mode: str, version: str, group: str, enough: bool) -> None:
    if enough:
        modes.check(modes.MODES[mode], got(version, group))
        return
    with pytest.raises(PolicyViolation, match=mode):
        modes.check(modes.MODES[mode], got(version, group))


@pytest.mark.parametrize(
    ("authentication", "ours", "foreign"),
    [
        ("ecdsa_secp256r1_sha256", True, True),
        ("ecdsa_secp384r1_sha384", True, True),
        ("rsa_pss_rsae_sha256", False, True),
        ("mldsa65", False, True),
        ("ecdsa_secp521r1_sha512", False, False),
        ("ed25519", False, False),
        ("none", False, False),
    ],
)
def test_a_peer_is_authenticated_as_the_mode_demands_or_refused(authentication: str, ours: bool, foreign: bool) -> None:
    facts = got("TLSv1.3", "X25519MLKEM768", authentication)
    mode = modes.MODES["hybrid"]
    for demanded, enough in ((mode, ours), (modes.foreign(mode), foreign)):
        if enough:
            modes.check(demanded, facts)
            continue
        with pytest.raises(PolicyViolation, match=f"hybrid demands a peer authenticated by .* {authentication}"):
            modes.check(demanded, facts)


@pytest.mark.parametrize("chain", ["rsa_pkcs1_sha512", "ecdsa_secp521r1_sha512", "mldsa44"])
def test_a_foreign_server_with_an_mldsa_key_may_have_any_authority_and_a_peer_may_not(chain: str) -> None:
    facts = msgspec.structs.replace(got("TLSv1.3", "X25519MLKEM768", chain), certificate_algorithm="ML-DSA-65")
    modes.check(modes.foreign(modes.MODES["hybrid"]), facts)
    for name in ("hybrid", "pq-auth"):
        with pytest.raises(PolicyViolation, match=f"this one is by {chain}"):
            modes.check(modes.MODES[name], facts)


def test_only_the_second_choice_is_a_downgrade() -> None:
    preferred = modes.MODES["hybrid-preferred"]
    assert modes.is_downgrade(preferred, "X25519")
    assert not modes.is_downgrade(preferred, "X25519MLKEM768")
    assert not modes.is_downgrade(modes.MODES["classical"], "X25519")


def test_a_listener_offers_hybrid_groups_in_a_tier_of_their_own_before_classical_ones() -> None:
    settings = groups.listener_settings(modes.MODES.values())
    assert settings.groups == "X25519MLKEM768:SecP256r1MLKEM768 / X25519:P-256"
    assert (settings.min_version, settings.max_version) == ("TLSv1.2", "TLSv1.3")
    assert groups.listener_settings([modes.MODES["hybrid"]]).groups == "X25519MLKEM768"


def test_a_client_sends_a_key_share_of_every_group_that_it_offers() -> None:
    assert groups.client_settings(modes.MODES["hybrid-preferred"]).groups == "*X25519MLKEM768:*X25519"
    assert groups.client_settings(modes.MODES["hybrid"]).groups == "X25519MLKEM768"
    assert groups.client_settings(modes.MODES["classical-tls12"]).groups == "P-256"


@pytest.mark.parametrize("name", ["x25519", "X25519", "prime256v1", "P-256", "x25519mlkem768"])
def test_group_names_are_spelled_as_iana_does(name: str) -> None:
    assert groups.canonical_group(name) in {"X25519", "secp256r1", "X25519MLKEM768"}
