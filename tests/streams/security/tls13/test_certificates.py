"""Chains: what is accepted, why one is not, what the other side hears, and what is remembered."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.errors import ConfigError, HandshakeFailed
from streams.security.authentication import weakest
from streams.security.endpoint import Credentials
from streams.security.tls13 import certificates
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.certificates import Trust
from streams.security.tls13.party import load
from tests.streams.security.tls13.support import (
    DAY,
    HOST,
    MAKE_KEY,
    NOW,
    Authority,
    connect,
    our_client,
    our_server,
    pem,
)
from tests.streams.security.tls13.tampering import outcome

CLIENT = "spiffe://test/forwarder"


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def leaf_of(authority: Authority, names: tuple[str, ...] = (HOST,), **options: Any) -> bytes:
    return der(authority.leaf(MAKE_KEY["p256"]().public_key(), names, **options))


def refusal(trust: Trust, chain: list[bytes], host: str | None = HOST) -> tuple[Alert, str]:
    with pytest.raises(Abort) as caught:
        trust.verify(chain, host)
    return caught.value.alert, caught.value.reason


AUTHORITY = Authority()
OTHER = Authority()
TRUST = Trust([AUTHORITY.certificate])


@pytest.mark.parametrize(
    ("chain", "host", "alert", "reason"),
    [
        ([leaf_of(OTHER)], HOST, Alert.UNKNOWN_CA, "unknown_ca"),
        ([leaf_of(AUTHORITY, ("elsewhere",))], HOST, Alert.BAD_CERTIFICATE, "host_mismatch"),
        ([leaf_of(AUTHORITY, ("127.0.0.1",))], "127.0.0.2", Alert.BAD_CERTIFICATE, "host_mismatch"),
        ([leaf_of(AUTHORITY, (CLIENT,))], HOST, Alert.BAD_CERTIFICATE, "host_mismatch"),
        (
            [leaf_of(AUTHORITY, start=NOW - 3 * DAY, end=NOW - DAY)],
            HOST,
            Alert.CERTIFICATE_EXPIRED,
            "certificate_expired",
        ),
        (
            [leaf_of(AUTHORITY, start=NOW + DAY, end=NOW + 2 * DAY)],
            HOST,
            Alert.BAD_CERTIFICATE,
            "certificate_not_yet_valid",
        ),
        (
            [leaf_of(AUTHORITY, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])],
            HOST,
            Alert.BAD_CERTIFICATE,
            "certificate_invalid",
        ),
        (
            [leaf_of(AUTHORITY, purposes=[ExtendedKeyUsageOID.SERVER_AUTH])],
            None,
            Alert.BAD_CERTIFICATE,
            "certificate_invalid",
        ),
        ([leaf_of(AUTHORITY, key_usage="key_agreement")], HOST, Alert.BAD_CERTIFICATE, "certificate_invalid"),
        ([b"\x30\0"], HOST, Alert.BAD_CERTIFICATE, "certificate_invalid"),
        ([leaf_of(AUTHORITY), b"junk"], HOST, Alert.BAD_CERTIFICATE, "certificate_invalid"),
    ],
)
def test_a_chain_is_refused_with_a_word_for_metrics_and_an_alert(
    chain: list[bytes], host: str | None, alert: Alert, reason: str
) -> None:
    assert refusal(TRUST, chain, host) == (alert, reason)


@pytest.mark.parametrize(("names", "host"), [((HOST,), HOST), (("127.0.0.1",), "127.0.0.1"), ((CLIENT,), None)])
def test_a_chain_is_accepted_with_stray_certificates_after_it(names: tuple[str, ...], host: str | None) -> None:
    peer = TRUST.verify([leaf_of(AUTHORITY, names), der(AUTHORITY.certificate), der(OTHER.certificate)], host)
    assert peer.chain_schemes == ("ecdsa_secp256r1_sha256",)


def test_the_intermediate_must_come_along() -> None:
    between = Authority("p384", parent=AUTHORITY, name="between")
    leaf = leaf_of(between)
    assert refusal(TRUST, [leaf]) == (Alert.UNKNOWN_CA, "unknown_ca")
    peer = TRUST.verify([leaf, der(between.certificate)], HOST)
    assert peer.chain_schemes == ("ecdsa_secp384r1_sha256", "ecdsa_secp256r1_sha256")


def test_two_cas_of_one_name_are_both_trusted_while_one_takes_over() -> None:
    both = Trust([AUTHORITY.certificate, OTHER.certificate])
    for authority in (AUTHORITY, OTHER):
        both.verify([leaf_of(authority)], HOST)


def test_a_verified_chain_is_remembered_for_its_name_an_hour_and_not_past_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [NOW]
    trust = Trust([AUTHORITY.certificate], clock=lambda: clock[0])
    tried = []
    path = trust._path

    def counted(*arguments: Any, **more: Any) -> list[x509.Certificate]:
        tried.append(arguments)
        return path(*arguments, **more)

    monkeypatch.setattr(trust, "_path", counted)
    chain = [leaf_of(AUTHORITY, end=NOW + datetime.timedelta(minutes=90))]
    first = trust.verify(chain, HOST)
    assert trust.verify(chain, HOST) is first
    assert len(tried) == 1
    trust.verify(chain, None)
    assert len(tried) == 2
    with pytest.raises(Abort):
        trust.verify(chain, "elsewhere")
    with pytest.raises(Abort):
        trust.verify(chain, "elsewhere")
    assert len(tried) == 4, "a failure is not remembered"
    clock[0] += datetime.timedelta(minutes=61)
    trust.verify(chain, HOST)
    assert len(tried) == 5
    clock[0] += datetime.timedelta(minutes=30)
    assert refusal(trust, chain) == (Alert.CERTIFICATE_EXPIRED, "certificate_expired")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_KEPT", 3)
    trust = Trust([AUTHORITY.certificate])
    for _ in range(8):
        trust.verify([leaf_of(AUTHORITY)], HOST)
        assert len(trust._kept) <= 3


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # a negative serial number
@given(st.integers(0), st.integers(1, 255))
def test_a_certificate_with_any_byte_changed_is_refused_with_a_certificate_alert(at: int, change: int) -> None:
    good = _CHANGED
    assume(at % len(good) != _UNUSED_BITS_AT)  # of the signature: verifiers do not look at it if these bits are 0
    spoiled = bytearray(good)
    spoiled[at % len(good)] ^= change
    alert, reason = refusal(TRUST, [bytes(spoiled)])
    assert alert in (Alert.BAD_CERTIFICATE, Alert.UNKNOWN_CA, Alert.CERTIFICATE_EXPIRED)
    assert reason != "tls_error"


_CHANGED = leaf_of(AUTHORITY)
_UNUSED_BITS_AT = len(_CHANGED) - len(x509.load_der_x509_certificate(_CHANGED).signature) - 1


@given(st.binary(max_size=300))
def test_any_bytes_in_place_of_a_certificate_are_refused(data: bytes) -> None:
    assert refusal(TRUST, [data]) == (Alert.BAD_CERTIFICATE, "certificate_invalid")


def test_the_other_side_hears_the_alert(tmp_path: Path) -> None:
    good, bad = AUTHORITY.issue(tmp_path / "a", names=[CLIENT]), OTHER.issue(tmp_path / "b")
    mine, heard = outcome(our_client(good), our_server(bad))
    assert (mine.reason, heard.reason, heard.alert) == ("unknown_ca", "alert_received", "unknown ca")


def test_a_key_of_a_kind_that_was_not_offered_is_an_unsupported_certificate(tmp_path: Path) -> None:
    ours, theirs = AUTHORITY.issue(tmp_path / "a", names=[CLIENT]), AUTHORITY.issue(tmp_path / "b", "p384")
    server = our_server(theirs)
    signer: Any = server._side._settings.authentication.credential.signer  # type: ignore[attr-defined]
    signer.schemes = (0x0403,)  # claims what it cannot keep
    (mine, *_) = outcome(our_client(ours, schemes=(0x0403,)), server)
    assert isinstance(mine.__cause__, Abort)
    assert mine.__cause__.alert == Alert.UNSUPPORTED_CERTIFICATE


def test_an_expired_client_hears_so(tmp_path: Path) -> None:
    old = AUTHORITY.issue(tmp_path / "a", names=[CLIENT], start=NOW - 3 * DAY, end=NOW - DAY)
    client, server = our_client(old), our_server(AUTHORITY.issue(tmp_path / "b"))
    with pytest.raises(HandshakeFailed) as caught:
        connect(client, server)
    assert caught.value.reason == "certificate_expired"
    with pytest.raises(HandshakeFailed) as heard:
        client.read()
    assert heard.value.alert == "certificate expired"


def test_names_and_addresses_as_sni_and_verifier_want_them() -> None:
    assert TRUST.names_of("localhost") == (b"localhost", "localhost")
    assert TRUST.names_of("127.0.0.1") == (None, "127.0.0.1")
    assert TRUST.names_of("::1") == (None, "::1")
    assert TRUST.names_of("bücher.example") == (b"xn--bcher-kva.example", "xn--bcher-kva.example")
    for wrong in ("a" * 64, "", "a..b", "a_b", "-a", "*.example"):
        with pytest.raises(ValueError, match=r".*"):
            TRUST.names_of(wrong)


def test_the_weakest_link_is_the_one_that_is_named() -> None:
    assert weakest(["mldsa65", "mldsa65"]) == "mldsa65"
    assert weakest(["mldsa65", "mldsa44"]) == "mldsa44"
    assert weakest(["mldsa65", "rsa_pkcs1_sha256", "mldsa65"]) == "rsa_pkcs1_sha256"
    assert weakest(["ecdsa_secp256r1_sha256", "rsa_pkcs1_sha256"]) == "ecdsa_secp256r1_sha256"


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("certificate", "not PEM", "tls.certificate"),
        ("key", "not PEM", "tls.key"),
        ("ca", "not PEM", "tls.ca"),
        ("certificate", None, "tls.certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(name: str, text: str | None, key: str, tmp_path: Path) -> None:
    files = AUTHORITY.issue(tmp_path)
    path: Path = getattr(files, name)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(files)
    (problem,) = caught.value.problems
    assert (problem.path, problem.key) == (path, key)
    assert "cannot be used" in problem.message


def test_a_key_that_is_another_certificates_is_refused(tmp_path: Path) -> None:
    files = AUTHORITY.issue(tmp_path / "a")
    other = AUTHORITY.issue(tmp_path / "b")
    with pytest.raises(ConfigError, match="is not the certificate's key"):
        load(Credentials(files.certificate, other.key, files.ca))


def test_a_root_that_the_file_lists_is_sent_and_does_no_harm(tmp_path: Path) -> None:
    files = AUTHORITY.issue(tmp_path / "b")
    files.certificate.write_bytes(files.certificate.read_bytes() + pem(AUTHORITY.certificate))
    client, server = our_client(AUTHORITY.issue(tmp_path / "a", names=[CLIENT])), our_server(files)
    connect(client, server)
    assert client.facts().authentication == "ecdsa_secp256r1_sha256"
