"""Modes are data: what each demands, and what a listener offers that serves several."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from streams.errors import PolicyViolation
from streams.security import modes


@dataclass
class Got:
    version: str
    group: str


@pytest.mark.parametrize(
    ("mode", "version", "group", "enough"),
    [
        ("classical-tls12", "TLSv1.2", "secp256r1", True),
        ("classical-tls12", "TLSv1.3", "secp256r1", False),
        ("classical", "TLSv1.3", "x25519", True),
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
        modes.check(modes.MODES[mode], Got(version, group))
        return
    with pytest.raises(PolicyViolation, match=mode):
        modes.check(modes.MODES[mode], Got(version, group))


def test_only_the_second_choice_is_a_downgrade() -> None:
    preferred = modes.MODES["hybrid-preferred"]
    assert modes.is_downgrade(preferred, "x25519")
    assert not modes.is_downgrade(preferred, "X25519MLKEM768")
    assert not modes.is_downgrade(modes.MODES["classical"], "x25519")


def test_a_listener_offers_hybrid_groups_in_a_tier_of_their_own_before_classical_ones() -> None:
    settings = modes.listener_settings(modes.MODES.values())
    assert settings.groups == "X25519MLKEM768:SecP256r1MLKEM768 / X25519:P-256"
    assert (settings.min_version, settings.max_version) == ("TLSv1.2", "TLSv1.3")
    assert modes.listener_settings([modes.MODES["hybrid"]]).groups == "X25519MLKEM768"


@pytest.mark.parametrize("name", ["x25519", "X25519", "prime256v1", "P-256", "x25519mlkem768"])
def test_group_names_are_spelled_as_iana_does(name: str) -> None:
    assert modes.canonical_group(name) in {"X25519", "secp256r1", "X25519MLKEM768"}
