"""Delegated credentials: sent to peers that accept them, with signatures and with KEMs; each refusal by its name."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from streams.security.tls13 import extensions as ext
from streams.security.tls13 import messages as m
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.certificates import Trust
from streams.security.tls13.delegated import CLIENT, SERVER, Delegated, check, issue, parse
from streams.security.tls13.kem import KEM_CODES, KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.names import Extension
from streams.security.tls13.schemes import SCHEME_CODES, SCHEMES, KeySigner
from streams.security.tls13.settings import Settings
from streams.security.tls13.signature import Credential, Signature
from tests.streams.security.tls13.support import (
    ALPN,
    DAY,
    HOST,
    MAKE_KEY,
    NOW,
    SCHEME_OF,
    Authority,
    client_of,
    connect,
    exchange,
    server_of,
)
from tests.streams.security.tls13.tampering import outcome, replaced, spoil

NAME = "spiffe://test/forwarder"
HOUR = datetime.timedelta(hours=1)
AUTHORITY = Authority("mldsa44")
TRUST = Trust([AUTHORITY.certificate])
ECDSA, MLDSA = SCHEME_CODES["ecdsa_secp256r1_sha256"], SCHEME_CODES["mldsa44"]
KEM = KEM_CODES["ML-KEM-768"]


class Leaf:
    """A certificate that may delegate, and its key."""

    def __init__(self, name: str, kind: str = "p256", authority: Authority = AUTHORITY, **options: Any) -> None:
        self.key = MAKE_KEY[kind]()
        self.signer = KeySigner(self.key)
        self.certificate = authority.leaf(self.key.public_key(), [name], **{"delegates": True} | options)
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.side = CLIENT if ":" in name else SERVER

    def delegate(self, scheme: int, key: Any, **changes: Any) -> Delegated:
        arguments: dict[str, Any] = {"now": NOW} | changes
        return issue(arguments.pop("side", self.side), self.certificate, self.signer, scheme, key, **arguments)


def signing(name: str, leaf: str = "p256", delegated: str = "p256", **changes: Any) -> Credential:
    """A side with a delegated key of some kind."""
    holder, key = Leaf(name, leaf), MAKE_KEY[delegated]()
    made = holder.delegate(SCHEME_CODES[SCHEME_OF[delegated]], key.public_key(), **changes)
    return Credential((holder.der,), holder.signer, made, KeySigner(key))


def settings(way: Any, **changes: Any) -> Settings:
    return Settings(groups=(0x1D,), suites=(0x1301,), authentication=way, trust=TRUST, alpn=ALPN, **changes)


EVERY = tuple(SCHEMES)


@pytest.mark.parametrize("leaf", ["p256", "rsa", "mldsa44", "mldsa65"])
@pytest.mark.parametrize("delegated", ["p256", "p384", "ed25519", "mldsa44"])
def test_each_side_proves_a_delegated_key_of_any_kind(leaf: str, delegated: str) -> None:
    one = client_of(settings(Signature(EVERY, signing(NAME, leaf, delegated), EVERY)))
    other = server_of(settings(Signature(EVERY, signing(HOST, leaf, delegated), EVERY)))
    connect(one, other)
    exchange(one, other)
    assert (one.facts().identities, other.facts().identities) == ((HOST,), (NAME,))
    for end in (one, other):
        agreed = end._shake.agreed
        assert agreed.proof == SCHEME_OF[delegated]
        assert agreed.peer is not None
        assert agreed.peer.delegated_by == SCHEME_OF[leaf]
    weak = [name for name in (SCHEME_OF[delegated], SCHEME_OF[leaf]) if not name.startswith("mldsa")]
    assert one.facts().authentication == (weak[0] if weak else "mldsa44")


def test_a_side_that_is_not_asked_for_one_proves_its_leaf() -> None:
    client, server = signing(NAME, delegated="mldsa44"), signing(HOST, delegated="mldsa44")
    for asked in ((), (SCHEME_CODES["ed25519"],)):
        one = client_of(settings(Signature(EVERY, client, asked)))
        other = server_of(settings(Signature(EVERY, server, asked)))
        connect(one, other)
        for end in (one, other):
            assert end._shake.agreed.proof == "ecdsa_secp256r1_sha256"
            assert end._shake.agreed.peer is not None
            assert end._shake.agreed.peer.delegated_by is None


def test_a_delegated_scheme_need_not_be_one_that_leaves_may_sign_with() -> None:
    one = client_of(settings(Signature((ECDSA,), signing(NAME, delegated="mldsa44"), (MLDSA,))))
    other = server_of(settings(Signature((ECDSA,), signing(HOST, delegated="mldsa44"), (MLDSA,))))
    connect(one, other)
    assert one._shake.agreed.proof == other._shake.agreed.proof == "mldsa44"


def test_a_credential_of_ours_that_has_expired_is_not_shown() -> None:
    server = signing(HOST, delegated="mldsa44", now=NOW - 2 * DAY + HOUR, lifetime=DAY)
    one = client_of(settings(Signature(EVERY, signing(NAME), EVERY)))
    other = server_of(settings(Signature(EVERY, server, EVERY)))
    connect(one, other)
    assert one._shake.agreed.proof == "ecdsa_secp256r1_sha256"


# -- KEMs --------------------------------------------------------------------------------------------------------


def kem_side(name: str, **changes: Any) -> KemCredential:
    leaf, key = Leaf(name, "mldsa44"), MAKE_KEY["mlkem768"]()
    return KemCredential((leaf.der,), KemKey(key), leaf.delegate(KEM, key.public_key(), **changes))


def kem_way(credential: KemCredential | None, *, asks: bool = True) -> KemAuthentication:
    delegated = ((KEM,), (MLDSA,)) if asks else ((), ())
    return KemAuthentication((KEM,), (MLDSA,), credential, *delegated)


@pytest.mark.parametrize("ask", [True, False])
def test_a_kem_may_be_delegated_to(ask: bool) -> None:
    one = client_of(settings(kem_way(kem_side(NAME))))
    other = server_of(settings(kem_way(kem_side(HOST)), ask_client=ask))
    connect(one, other)
    exchange(one, other)
    assert one.facts().identities == (HOST,)
    assert other.facts().identities == ((NAME,) if ask else ())
    assert one._shake.agreed.proof == "ML-KEM-768"
    assert one.facts().authentication == "mldsa44"


def test_a_delegated_kem_that_was_not_asked_for_or_has_expired_is_of_no_use() -> None:
    one = client_of(settings(kem_way(kem_side(NAME), asks=False)))
    other = server_of(settings(kem_way(kem_side(HOST))))
    first, heard = outcome(one, other)
    assert (first.reason, heard.alert) == ("no_shared_signature_algorithm", "handshake failure")
    old = kem_side(HOST, now=NOW - 2 * DAY + HOUR, lifetime=DAY)
    first, heard = outcome(client_of(settings(kem_way(kem_side(NAME)))), server_of(settings(kem_way(old))))
    assert (first.reason, heard.alert) == ("no_shared_signature_algorithm", "handshake failure")


# -- refusals ----------------------------------------------------------------------------------------------------

HOLDER, OTHER = Leaf(HOST), Leaf(HOST)
KEY = MAKE_KEY["p256"]().public_key()
GOOD = HOLDER.delegate(ECDSA, KEY)


def changed(**fields: Any) -> bytes:
    return msgspec.structs.replace(parse(GOOD.raw), **fields).encode()


def resigned(**fields: Any) -> bytes:
    """Other fields, and a signature that is right for them."""
    found = msgspec.structs.replace(parse(GOOD.raw), **fields)
    content = found.signed_content(SERVER, HOLDER.der)
    return msgspec.structs.replace(found, signature=HOLDER.signer.sign(ECDSA, content)).encode()


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


REFUSED: dict[str, tuple[bytes, str]] = {
    "expired": (HOLDER.delegate(ECDSA, KEY, now=NOW - HOUR, lifetime=HOUR / 2).raw, "it has expired"),
    "long": (HOLDER.delegate(ECDSA, KEY, lifetime=8 * DAY).raw, "its lifetime is too long"),
    "endless": (resigned(valid_time=0xFFFFFFFF), "its lifetime is too long"),
    "scheme": (resigned(scheme=SCHEME_CODES["ed25519"]), "was not offered"),
    "scheme of another key": (resigned(scheme=SCHEME_CODES["mldsa44"]), "its key is not of its scheme"),
    "algorithm": (resigned(algorithm=SCHEME_CODES["mldsa65"]), "its algorithm"),
    "algorithm of another key": (resigned(algorithm=MLDSA), "its algorithm"),
    "signature": (changed(valid_time=parse(GOOD.raw).valid_time + 1), "its signature is wrong"),
    "role": (HOLDER.delegate(ECDSA, KEY, side=CLIENT).raw, "its signature is wrong"),
    "leaf": (OTHER.delegate(ECDSA, KEY).raw, "its signature is wrong"),
    "unreadable key": (resigned(spki=b"junk"), "its key cannot be read"),
    "RSA key": (resigned(spki=spki(MAKE_KEY["rsa"]().public_key())), "rsaEncryption"),
}
OFFERED = (ECDSA, MLDSA)


def checked(body: bytes, leaf: x509.Certificate = HOLDER.certificate) -> Any:
    return check(body, SERVER, leaf, now=NOW, schemes=OFFERED, algorithms=OFFERED)


@pytest.mark.parametrize("case", REFUSED)
def test_a_credential_is_refused_by_name(case: str) -> None:
    body, text = REFUSED[case]
    with pytest.raises(Abort, match=text) as caught:
        checked(body)
    assert (caught.value.alert, caught.value.reason) == (Alert.ILLEGAL_PARAMETER, "delegated_credential")


@pytest.mark.parametrize("options", [{"delegates": False}, {"key_usage": "key_agreement"}])
def test_a_leaf_that_does_not_permit_it_is_refused(options: dict[str, Any]) -> None:
    leaf = Leaf(HOST, **options)
    with pytest.raises(Abort, match="does not permit delegation") as caught:
        checked(leaf.delegate(ECDSA, KEY).raw, leaf.certificate)
    assert caught.value.alert == Alert.ILLEGAL_PARAMETER


def test_a_credential_as_it_should_be_is_accepted_to_its_last_second() -> None:
    found, key = checked(GOOD.raw)
    assert key == KEY
    assert found.encode() == GOOD.raw
    end = HOLDER.certificate.not_valid_before_utc + datetime.timedelta(seconds=found.valid_time)
    for now, accepted in ((end, True), (end + datetime.timedelta(seconds=1), False)):
        if accepted:
            check(GOOD.raw, SERVER, HOLDER.certificate, now=now, schemes=OFFERED, algorithms=OFFERED)
        else:
            with pytest.raises(Abort, match="expired"):
                check(GOOD.raw, SERVER, HOLDER.certificate, now=now, schemes=OFFERED, algorithms=OFFERED)


def test_the_lifetime_counts_from_the_leafs_beginning() -> None:
    leaf = Leaf(HOST, start=NOW - 30 * DAY)
    made = parse(issue(SERVER, leaf.certificate, leaf.signer, ECDSA, KEY, now=NOW.replace(microsecond=0)).raw)
    begun = leaf.certificate.not_valid_before_utc
    assert made.valid_time == int((NOW.replace(microsecond=0) - begun).total_seconds()) + 86400


@given(st.integers(0, len(GOOD.raw) - 1), st.integers(1, 255))
def test_no_credential_survives_a_change_of_any_byte(at: int, change: int) -> None:
    body = bytearray(GOOD.raw)
    body[at] ^= change
    with pytest.raises(Abort) as caught:
        checked(bytes(body))
    assert caught.value.alert in (Alert.ILLEGAL_PARAMETER, Alert.DECODE_ERROR)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_credential_or_a_typed_error(body: bytes) -> None:
    with pytest.raises(Abort):
        checked(body)


# -- in a handshake ------------------------------------------------------------------------------------------------


def with_entries(change: Any) -> Any:
    """Change the entries of a Certificate message."""

    def changed_message(message: bytes) -> list[bytes]:
        certificate = m.parse_certificate(message[4:])
        return [m.Certificate(b"", tuple(change(list(certificate.entries)))).encode()]

    return changed_message


def ends(*, asked: tuple[int, ...] = OFFERED) -> Any:
    one = client_of(settings(Signature(EVERY, signing(NAME), asked)))
    return one, server_of(settings(Signature(EVERY, Credential((HOLDER.der,), HOLDER.signer), OFFERED)))


def carrying(entry: m.CertificateEntry) -> m.CertificateEntry:
    return m.CertificateEntry(entry.der, {Extension.DELEGATED_CREDENTIAL: GOOD.raw})


def test_one_that_was_not_asked_for_is_unexpected() -> None:
    client, server = ends(asked=())
    spoil(server, replaced(3, with_entries(lambda entries: [carrying(entries[0])])))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.UNEXPECTED_MESSAGE


def test_one_on_another_certificate_is_ignored() -> None:
    client, server = ends()
    extra = m.CertificateEntry(OTHER.der)
    spoil(server, replaced(3, with_entries(lambda entries: [entries[0], carrying(extra)])))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.DECRYPT_ERROR, "only the transcript differs: the leaf's own key was expected"
    assert client._shake.agreed.peer is not None
    assert client._shake.agreed.peer.delegated_by is None


def test_the_handshake_must_be_signed_with_the_credentials_scheme() -> None:
    """The leaf's key signs, but a credential was shown."""
    client, server = ends()
    wrong = signing(HOST, delegated="mldsa44")
    lying = Credential(wrong.chain, wrong.signer, wrong.delegated, wrong.signer)
    server = server_of(settings(Signature(EVERY, lying, EVERY)))
    spoil(server, replaced(4, lambda message: [message[:4] + ECDSA.to_bytes(2) + message[6:]]))
    signer: Any = wrong.signer
    signer.sign = lambda _, content: KeySigner(MAKE_KEY["p256"]()).sign(ECDSA, content)
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.ILLEGAL_PARAMETER


def test_the_extension_lists_the_schemes() -> None:
    client, _ = ends()
    client.handshake()
    record = b"".join(client.take())
    offered = m.parse_client_hello(record[9:]).extensions
    assert ext.parse_numbers(offered[Extension.DELEGATED_CREDENTIAL], "") == OFFERED
