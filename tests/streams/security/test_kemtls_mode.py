"""Mode kemtls: ML-KEM-768 on both ends, ML-DSA above; each refusal, of peers and of own files, by its name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from streams.errors import ConfigError, HandshakeFailed, PolicyViolation
from streams.security import modes, pki, stacks
from streams.security.endpoint import Credentials, Endpoint, Facts, MlKemFiles
from streams.security.modes import MODES
from streams.security.tls13 import party as tls13
from tests.support.tls import FORWARDER, Parties, issue, problems, shake_hands

KEMTLS = MODES["kemtls"]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


def ends(client: Credentials, server: Credentials) -> tuple[Endpoint, Endpoint]:
    """Of parties that do not look at their own files, as peers of another make might not."""
    near = tls13.client(KEMTLS, stacks.files_for(KEMTLS, client)).endpoint("localhost")
    return near, tls13.server([KEMTLS], stacks.files_for(KEMTLS, server)).endpoint()


def leaf(authority: pki.Authority, party: str, kind: str = "mlkem768", **options: object) -> MlKemFiles:
    """[tls.mlkem] files of a party under some authority."""
    names: dict[str, list[str]] = {"identities": ["receiver"], "hosts": ["localhost"]}
    if party == "forwarder":
        names = {"identities": [FORWARDER]}
    files = issue(authority, f"{party}-{kind}-other", kind=kind, force=True, **names, **options)  # type: ignore[arg-type]
    return MlKemFiles(*msgspec.structs.astuple(files))


def with_leaf(credentials: Credentials, files: MlKemFiles, *trusted: Path) -> Credentials:
    """The same party with these files, trusting these CAs too."""
    both = files.certificate.with_suffix(".ca.pem")
    both.write_bytes(b"".join(path.read_bytes() for path in (files.ca, *trusted)))
    return msgspec.structs.replace(credentials, mlkem=msgspec.structs.replace(files, ca=both))


def test_both_ends_are_authenticated_by_mlkem768(parties: Parties) -> None:
    near = stacks.client(KEMTLS, parties.forwarder).endpoint("localhost")
    far = stacks.server([KEMTLS], parties.receiver).endpoint()
    shake_hands(near, far)
    for end, identity in ((near, "receiver"), (far, FORWARDER)):
        facts = end.facts()
        modes.check(KEMTLS, facts)
        assert (facts.group, facts.authentication) == ("X25519MLKEM768", "ML-KEM-768")
        assert (facts.certificate_algorithm, facts.identities[0]) == ("ML-KEM-768", identity)


@pytest.mark.parametrize("mode", ["hybrid", "pq-auth"])
def test_a_link_of_another_mode_is_not_taken_for_kemtls_nor_the_other_way_round(parties: Parties, mode: str) -> None:
    found: dict[str, Facts] = {}
    for name in (mode, "kemtls"):
        near = stacks.client(MODES[name], parties.forwarder).endpoint("localhost")
        shake_hands(near, stacks.server([MODES[name]], parties.receiver).endpoint())
        found[name] = near.facts()
    for claimed, real in ((mode, "kemtls"), ("kemtls", mode)):
        with pytest.raises(PolicyViolation, match=f"mode {claimed} demands a peer authenticated by"):
            modes.check(MODES[claimed], found[real])


@pytest.mark.parametrize(
    ("kind", "scheme"), [("ec", "ecdsa_secp256r1_sha256"), ("rsa", "rsa_pkcs1_sha256"), ("mldsa44", "mldsa44")]
)
@pytest.mark.parametrize("weak", ["forwarder", "receiver"])
def test_a_weaker_ca_over_an_mlkem_leaf_is_refused_by_the_other_end(
    parties: Parties, tmp_path: Path, kind: str, scheme: str, weak: str
) -> None:
    weaker, ca = pki.create_authority(tmp_path, kind=kind), parties.mldsa.directory / "ca.pem"
    ours = {"forwarder": parties.forwarder, "receiver": parties.receiver}
    for party, credentials in ours.items():
        files = leaf(weaker if party == weak else parties.mldsa, party)
        ours[party] = with_leaf(credentials, files, ca, tmp_path / "ca.pem")
    near, far = ends(ours["forwarder"], ours["receiver"])
    with pytest.raises(HandshakeFailed, match=f"its chain is signed with {scheme}") as refused:
        shake_hands(near, far)
    assert refused.value.reason == "certificate_invalid"
    assert not (near.complete and far.complete)
    other = near if weak == "forwarder" else far
    with pytest.raises(HandshakeFailed) as told:
        other.handshake()
    assert told.value.alert == "bad certificate"


@pytest.mark.parametrize(("kind", "scheme"), [("ec", "ecdsa_secp256r1_sha256"), ("rsa", "rsa_pkcs1_sha256")])
def test_a_classical_chain_that_the_configuration_allows_is_accepted_and_shown_as_what_it_is(
    parties: Parties, tmp_path: Path, kind: str, scheme: str
) -> None:
    classical = pki.create_authority(tmp_path, kind=kind)
    ours = {"forwarder": parties.forwarder, "receiver": parties.receiver}
    for party, credentials in ours.items():
        files = msgspec.structs.replace(leaf(classical, party), allow_classical_chain=True)
        ours[party] = msgspec.structs.replace(credentials, mlkem=files)
        assert problems(ours[party], "kemtls", accepting=party == "receiver") == []
    near = stacks.client(KEMTLS, ours["forwarder"]).endpoint("localhost")
    far = stacks.server([KEMTLS], ours["receiver"]).endpoint()
    shake_hands(near, far)
    for end, party in ((near, "forwarder"), (far, "receiver")):
        assert end.facts().authentication == scheme
        modes.check(stacks.demanded(KEMTLS, ours[party]), end.facts())
        with pytest.raises(PolicyViolation, match="its chain is not signed as strongly"):
            modes.check(KEMTLS, end.facts())


# -- what it finds in its own files ----------------------------------------------------------------------------------


REMEDY = (
    "mode kemtls demands ML-KEM-768 in the leaf, and mldsa65 or mldsa87 above it: "
    "use `logfwd pki init --key mldsa65` and `issue --key mlkem768`"
)


@pytest.mark.parametrize(("kind", "key"), [("ec", "EC secp256r1"), ("mldsa65", "ML-DSA-65")])
def test_a_leaf_of_another_kind_is_found_in_our_own_files(parties: Parties, kind: str, key: str) -> None:
    wrong = msgspec.structs.replace(parties.forwarder, mlkem=leaf(parties.mldsa, "forwarder", kind))
    assert problems(wrong, "kemtls", accepting=False) == [f"tls.mlkem.certificate: its key is {key}; {REMEDY}"]
    for make in (stacks.client, lambda mode, files: stacks.server([mode], files)):
        with pytest.raises(ConfigError, match=rf"tls\.mlkem\.certificate: its key is {key}"):
            make(KEMTLS, wrong)


def test_an_authority_of_another_kind_is_found_in_our_own_files(parties: Parties, tmp_path: Path) -> None:
    files = leaf(pki.create_authority(tmp_path), "forwarder")
    assert problems(msgspec.structs.replace(parties.forwarder, mlkem=files), "kemtls", accepting=False) == [
        f"tls.mlkem.certificate: CN={FORWARDER} is signed with ECDSA with SHA-256; {REMEDY}",
        f"tls.mlkem.ca: the key of CN=logfwd private CA is EC secp256r1; {REMEDY}",
    ]


@pytest.mark.parametrize("host", ["10.0.0.7", "logs.example", "*.example.net"])
def test_files_for_a_role_pass_in_this_role_and_in_no_other(parties: Parties, host: str) -> None:
    receiver = issue(parties.mldsa, "role", kind="mlkem768", force=True, identities=["receiver"], hosts=[host])
    ours = msgspec.structs.replace(parties.receiver, mlkem=MlKemFiles(*msgspec.structs.astuple(receiver)))
    assert problems(ours, "kemtls", accepting=True) == []
    (found,) = problems(ours, "kemtls", accepting=False)
    assert found.startswith("tls.mlkem.certificate: peers would refuse it: ")
    assert problems(parties.forwarder, "kemtls", accepting=False) == []


def test_a_key_of_another_leaf_is_told(parties: Parties) -> None:
    assert parties.forwarder.mlkem is not None
    assert parties.receiver.mlkem is not None
    wrong = msgspec.structs.replace(parties.forwarder.mlkem, key=parties.receiver.mlkem.key)
    found = problems(msgspec.structs.replace(parties.forwarder, mlkem=wrong), "kemtls", accepting=False)
    assert found == ["tls.mlkem.key: is not the certificate's key"]
