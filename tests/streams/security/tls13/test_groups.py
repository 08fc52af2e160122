"""Key exchange: both ends of every group agree, and what a hostile peer may send as a share is an illegal_parameter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.groups import GROUP_CODES, GROUP_NAMES, GROUPS

SHARE_BYTES = {
    "secp256r1": (65, 65),
    "X25519": (32, 32),
    "SecP256r1MLKEM768": (65 + 1184, 65 + 1088),
    "X25519MLKEM768": (1184 + 32, 1088 + 32),
}
SECRET_BYTES = {"secp256r1": 32, "X25519": 32, "SecP256r1MLKEM768": 64, "X25519MLKEM768": 64}
LOW_ORDER = (bytes(32), b"\1" + bytes(31), bytes.fromhex("ecff") + b"\xff" * 29 + b"\x7f")


def refused(name: str, share: bytes) -> Abort:
    """The server's refusal of a client's share."""
    with pytest.raises(Abort) as caught:
        GROUPS[GROUP_CODES[name]].respond(share)
    return caught.value


@pytest.mark.parametrize("name", GROUP_CODES)
def test_both_ends_agree_on_a_secret(name: str) -> None:
    group = GROUPS[GROUP_CODES[name]]
    pair = group.generate()
    answer, secret = group.respond(pair.share)
    assert pair.agree(answer) == secret
    assert (len(pair.share), len(answer)) == SHARE_BYTES[name]
    assert len(secret) == SECRET_BYTES[name]
    assert GROUP_NAMES[GROUP_CODES[name]] == name


@pytest.mark.parametrize("name", GROUP_CODES)
def test_a_share_of_another_length_is_illegal(name: str) -> None:
    group = GROUPS[GROUP_CODES[name]]
    pair = group.generate()
    answer, _ = group.respond(pair.share)
    for wrong in (pair.share[:-1], pair.share + b"\0", b""):
        assert refused(name, wrong).alert == Alert.ILLEGAL_PARAMETER
    for wrong in (answer[:-1], answer + b"\0", b""):
        with pytest.raises(Abort) as caught:
            pair.agree(wrong)
        assert caught.value.alert == Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_low_order_point_is_illegal_alone_and_in_a_hybrid(point: bytes) -> None:
    assert refused("X25519", point).alert == Alert.ILLEGAL_PARAMETER
    hybrid = GROUPS[GROUP_CODES["X25519MLKEM768"]]
    pair = hybrid.generate()
    assert refused("X25519MLKEM768", pair.share[:1184] + point).alert == Alert.ILLEGAL_PARAMETER
    answer, _ = hybrid.respond(pair.share)
    with pytest.raises(Abort) as caught:
        pair.agree(answer[:1088] + point)
    assert caught.value.alert == Alert.ILLEGAL_PARAMETER


def test_a_point_that_is_not_on_the_curve_or_compressed_is_illegal() -> None:
    share = GROUPS[GROUP_CODES["secp256r1"]].generate().share
    for wrong in (b"\4" + bytes(64), share[:-1] + bytes((share[-1] ^ 1,)), b"\2" + share[1:33], b"\2" + share[1:]):
        assert refused("secp256r1", wrong).alert == Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("name", ["X25519MLKEM768", "SecP256r1MLKEM768"])
def test_an_ml_kem_key_that_is_not_canonical_is_illegal(name: str) -> None:
    """FIPS 203 section 7.2: a coefficient of 3329 or more."""
    share = bytearray(GROUPS[GROUP_CODES[name]].generate().share)
    start = 0 if name.startswith("X") else 65
    share[start : start + 3] = b"\xff\xff\xff"
    refusal = refused(name, bytes(share))
    assert refusal.alert == Alert.ILLEGAL_PARAMETER
    assert "canonical" in refusal.text


def test_a_forged_ciphertext_gives_another_secret_and_no_error() -> None:
    hybrid = GROUPS[GROUP_CODES["X25519MLKEM768"]]
    pair = hybrid.generate()
    answer, secret = hybrid.respond(pair.share)
    forged = bytes((answer[0] ^ 1,)) + answer[1:]
    assert pair.agree(forged)[:32] != secret[:32]
    assert pair.agree(forged)[32:] == secret[32:]


@given(st.sampled_from(sorted(GROUP_CODES)), st.binary(max_size=1300))
def test_any_bytes_are_a_share_or_a_typed_error(name: str, share: bytes) -> None:
    try:
        answer, secret = GROUPS[GROUP_CODES[name]].respond(share)
    except Abort:
        return
    assert (len(share), len(answer), len(secret)) == (*SHARE_BYTES[name], SECRET_BYTES[name])
