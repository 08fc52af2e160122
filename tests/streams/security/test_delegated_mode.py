"""[tls.delegated]: keys that last a day, in either end and every mode that takes them; refusals by their names."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mlkem

from streams.errors import ConfigError, HandshakeFailed
from streams.security import modes, pki, stacks
from streams.security.endpoint import Credentials, DelegatedFiles, DelegatedKind
from streams.security.modes import MODES
from streams.security.tls13 import delegated, delegated_files
from streams.security.tls13.kem import KEM_CODES
from streams.security.tls13.schemes import KeySigner
from tests.support.tls import FORWARDER, Parties, delegating, issue, problems, shake_hands

KEMTLS = MODES["kemtls"]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


def having(party: Credentials, files: DelegatedFiles) -> Credentials:
    """A party that has these files in place of those with their kind of key."""
    if files.kind == "mldsa65":
        return msgspec.structs.replace(party, mldsa=None, delegated=files)
    return msgspec.structs.replace(party, mlkem=None, delegated=files)


@pytest.mark.parametrize("ours", ["receiver", "forwarder", "both"])
def test_either_end_may_show_a_delegated_key(ours: str, parties: Parties) -> None:
    forwarder, receiver = parties.forwarder, parties.receiver
    if ours != "receiver":
        forwarder = having(forwarder, delegating(parties, "forwarder"))
    if ours != "forwarder":
        receiver = having(receiver, delegating(parties, "receiver"))
    stacks.check(forwarder, [KEMTLS], accepting=False)
    stacks.check(receiver, [KEMTLS], accepting=True)
    near, far = stacks.client(KEMTLS, forwarder).endpoint("localhost"), stacks.server([KEMTLS], receiver).endpoint()
    shake_hands(near, far)
    for end, identity, role in ((near, "receiver", "receiver"), (far, FORWARDER, "forwarder")):
        facts = end.facts()
        modes.check(KEMTLS, facts)
        assert (facts.authentication, facts.identities[0]) == ("ML-KEM-768", identity)
        assert facts.certificate_algorithm == ("ML-DSA-65" if ours in (role, "both") else "ML-KEM-768")


def test_it_stands_for_tls_mlkem_in_kemtls_alone(parties: Parties) -> None:
    files = delegating(parties, "receiver")
    both = msgspec.structs.replace(parties.receiver, delegated=files)
    assert stacks.files_for(KEMTLS, both) == files
    assert stacks.files_for(MODES["kemtls-pdk"], both) == both.mlkem
    assert set(files.paths()) == {files.certificate, files.key, files.ca}
    with pytest.raises(ConfigError, match=r"tls\.mlkem"):
        stacks.files_for(MODES["kemtls-pdk"], having(parties.receiver, files))


SIGNING: list[tuple[str, DelegatedKind, str]] = [
    ("hybrid", "ec", "ecdsa_secp256r1_sha256"),
    ("hybrid-preferred", "ec", "ecdsa_secp256r1_sha256"),
    ("hybrid-p256", "ec", "ecdsa_secp256r1_sha256"),
    ("classical", "ec", "ecdsa_secp256r1_sha256"),
    ("pq-auth", "mldsa65", "mldsa65"),
]


@pytest.mark.parametrize("ours", ["receiver", "forwarder", "both"])
@pytest.mark.parametrize(("name", "kind", "authentication"), SIGNING)
def test_a_delegated_key_signs_in_every_mode_with_signatures(
    name: str, kind: DelegatedKind, authentication: str, ours: str, parties: Parties
) -> None:
    mode = MODES[name]
    forwarder, receiver = (
        having(party, delegating(parties, role, kind=kind))
        if ours in (role, "both")
        else msgspec.structs.replace(party, accept_delegated=True)
        for role, party in (("forwarder", parties.forwarder), ("receiver", parties.receiver))
    )
    stacks.check(forwarder, [mode], accepting=False)
    stacks.check(receiver, [mode], accepting=True)
    client, server = stacks.client(mode, forwarder), stacks.server([mode], receiver)
    assert [party.delegated_until is not None for party in (client, server)] == [
        ours in ("forwarder", "both"),
        ours in ("receiver", "both"),
    ]
    near, far = client.endpoint("localhost"), server.endpoint()
    shake_hands(near, far)
    for end, identity in ((near, "receiver"), (far, FORWARDER)):
        facts = end.facts()
        modes.check(mode, facts)
        assert (facts.authentication, facts.identities[0]) == (authentication, identity)
        assert facts.group == mode.groups[0]


def test_a_peer_over_openssl_takes_no_delegated_key_and_both_ends_say_so(parties: Parties) -> None:
    hybrid = MODES["hybrid"]
    plain, shown = parties.forwarder, having(parties.receiver, delegating(parties, "receiver", kind="ec"))
    near, far = stacks.client(hybrid, plain).endpoint("localhost"), stacks.server([hybrid], shown).endpoint()
    with pytest.raises(HandshakeFailed, match="the peer does not accept our delegated credential") as refused:
        shake_hands(near, far)
    assert refused.value.reason == "no_shared_signature_algorithm"
    with pytest.raises(HandshakeFailed, match="handshake failure"):
        near.handshake()


@pytest.mark.parametrize("name", ["hybrid", "pq-auth"])
@pytest.mark.parametrize("which", ["forwarder", "receiver"])
def test_who_accepts_delegated_keys_still_talks_with_peers_over_openssl(
    which: str, name: str, parties: Parties
) -> None:
    mode = MODES[name]
    forwarder, receiver = (
        msgspec.structs.replace(party, accept_delegated=which == role)
        for role, party in (("forwarder", parties.forwarder), ("receiver", parties.receiver))
    )
    near, far = stacks.client(mode, forwarder).endpoint("localhost"), stacks.server([mode], receiver).endpoint()
    shake_hands(near, far)
    for end in (near, far):
        modes.check(mode, end.facts())


def test_modes_that_take_delegated_keys_share_a_port_and_older_tls_needs_its_own(parties: Parties) -> None:
    receiver = msgspec.structs.replace(parties.receiver, accept_delegated=True)
    for shown in (receiver, having(parties.receiver, delegating(parties, "receiver", kind="ec"))):
        together = stacks.named(["hybrid", "pq-auth", "hybrid"], shown)
        assert [mode.name for mode in together] == ["hybrid", "pq-auth"]
        assert stacks.common_stack(together) == "tls13"
        assert all("experimental" in mode.label for mode in together)
        with pytest.raises(ConfigError, match=r"'classical-tls12' .openssl. and 'hybrid' .tls13. need different"):
            stacks.common_stack(stacks.named(["hybrid", "classical-tls12"], shown))
        stacks.self_test(together)
    assert stacks.files_for(MODES["classical-tls12"], shown).section == "tls"


def test_a_kem_in_tls_delegated_leaves_the_modes_with_signatures_to_openssl(parties: Parties) -> None:
    receiver = having(parties.receiver, delegating(parties, "receiver"))
    assert [mode.stack for mode in stacks.named(["hybrid", "kemtls"], receiver)] == ["openssl", "tls13"]


def of_the_past(files: DelegatedFiles, signer: Path) -> None:
    """Replace the credential by one that has expired."""
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = mlkem.MLKEM768PrivateKey.generate()
    signs = KeySigner(serialization.load_pem_private_key(signer.read_bytes(), None))
    hour = datetime.timedelta(hours=1)
    begun = leaf.not_valid_before_utc - hour
    made = delegated.issue(
        "server", leaf, signs, KEM_CODES["ML-KEM-768"], key.public_key(), now=begun, lifetime=hour + hour / 60
    )
    files.key.write_bytes(pki.pem_of(key) + delegated_files.encode(made.raw))


def test_own_files_that_no_peer_would_accept_are_refused_with_the_command_that_mends_them(parties: Parties) -> None:
    receiver = parties.receiver
    made: list[tuple[dict[str, Any], str]] = [
        ({"shown_by": "forwarder"}, "its signature is wrong"),
        ({"kind": "mldsa65"}, "is not of the kind mlkem768"),
    ]
    for options, text in made:
        wrong = msgspec.structs.replace(delegating(parties, "receiver", **options), kind="mlkem768")
        with pytest.raises(ConfigError) as refused:
            stacks.server([KEMTLS], having(receiver, wrong))
        assert "tls.delegated.key" in str(refused.value)
        assert text in str(refused.value)
        assert "logfwd pki delegate --role receiver" in str(refused.value)
    files = delegating(parties, "receiver")
    of_the_past(files, files.key.with_suffix(".key"))
    found = problems(having(receiver, files), "kemtls", accepting=True)
    assert "tls.delegated.key: cannot be used: it has expired" in found[0]
    leaf = issue(parties.authority, "classical-signs", kind="ec", delegates=True, identities=[], hosts=["localhost"])
    out = leaf.key.with_suffix(".dc")
    stacks.delegate(leaf.certificate, leaf.key, out, kind="mlkem768", accepting=True, hours=1, force=True)
    classical = having(receiver, DelegatedFiles(leaf.certificate, out, leaf.ca))
    found = problems(classical, "kemtls", accepting=True)
    assert "tls.delegated.certificate: its key is EC secp256r1" in found[0]


def test_a_receiver_whose_credential_expires_meanwhile_refuses_new_links(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = stacks.server([KEMTLS], having(parties.receiver, delegating(parties, "receiver")))
    left = party.delegated_until - datetime.datetime.now(datetime.UTC)  # type: ignore[operator]
    assert datetime.timedelta(hours=23, minutes=50) < left <= datetime.timedelta(hours=24)
    trust = party.settings.trust  # type: ignore[attr-defined]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=25)
    monkeypatch.setattr(trust, "clock", lambda: later)
    near = stacks.client(KEMTLS, parties.forwarder).endpoint("localhost")
    with pytest.raises(HandshakeFailed) as refused:
        shake_hands(near, party.endpoint())
    assert refused.value.reason == "no_shared_signature_algorithm"
