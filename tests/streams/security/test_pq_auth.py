"""Mode pq-auth: ML-DSA-65 in every place of both chains, next to hybrid on one listener; each refusal by its name."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa

from streams.errors import ConfigError, HandshakeFailed, PolicyViolation
from streams.security import modes, pki, stacks
from streams.security.endpoint import Credentials, Endpoint, Facts, Files, MlDsaFiles
from streams.security.modes import MODES
from streams.security.openssl import party as openssl
from tests.support.installation import EVERYTHING
from tests.support.tls import FORWARDER, Parties, issue, problems, shake_hands

PQ_AUTH = MODES["pq-auth"]
NAMES: dict[str, dict[str, list[str]]] = {
    "receiver": {"identities": ["receiver"], "hosts": ["localhost"]},
    "forwarder": {"identities": [FORWARDER]},
}


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


def link(client: Credentials, server: Credentials, served: Iterable[str], mode: str = "pq-auth") -> tuple[Facts, Facts]:
    """What the client and the server know of each other."""
    near, far = ends(client, server, served, mode)
    shake_hands(near, far)
    return near.facts(), far.facts()


def ends(client: Credentials, server: Credentials, served: Iterable[str], mode: str) -> tuple[Endpoint, Endpoint]:
    """Of parties that do not look at their own files, as peers of another make might not."""
    together = [MODES[name] for name in served]
    files = dict.fromkeys(stacks.files_for(each, server) for each in together)
    near = openssl.client(MODES[mode], stacks.files_for(MODES[mode], client)).endpoint("localhost")
    return near, openssl.server(together, *files).endpoint()


def under(authority: pki.Authority, party: str, credentials: Credentials, kind: str = "mldsa65") -> Credentials:
    """The same party with [tls.mldsa] files of another authority; it also trusts what it trusted before."""
    assert credentials.mldsa is not None
    files = issue(authority, f"{party}-{kind}", kind=kind, force=True, **NAMES[party])
    return trusting(msgspec.structs.replace(credentials, mldsa=as_mldsa(files)), credentials)


def trusting(credentials: Credentials, *others: Credentials) -> Credentials:
    """The same party, trusting the ML-DSA CAs of others too."""
    assert credentials.mldsa is not None
    both = credentials.mldsa.certificate.with_suffix(".ca.pem")
    authorities = {each.mldsa.ca for each in (credentials, *others) if each.mldsa is not None}
    both.write_bytes(b"".join(path.read_bytes() for path in sorted(authorities)))
    return msgspec.structs.replace(credentials, mldsa=msgspec.structs.replace(credentials.mldsa, ca=both))


def everywhere(files: Files) -> Credentials:
    """The same files in both sections."""
    return Credentials(files.certificate, files.key, files.ca, as_mldsa(files))


def as_mldsa(files: Files) -> MlDsaFiles:
    return MlDsaFiles(files.certificate, files.key, files.ca)


# -- what it accepts ----------------------------------------------------------------------------------------------


def test_both_ends_are_authenticated_by_mldsa65(parties: Parties) -> None:
    for facts in link(parties.forwarder, parties.receiver, ["pq-auth"]):
        modes.check(PQ_AUTH, facts)
        assert (facts.group, facts.authentication) == ("X25519MLKEM768", "mldsa65")
        assert facts.certificate_algorithm == "ML-DSA-65"
        assert facts.log_fields()["authentication"] == "mldsa65"


@pytest.mark.parametrize("served", [("hybrid", "pq-auth"), ("pq-auth", "hybrid"), EVERYTHING])
def test_one_listener_shows_each_client_the_certificate_of_its_mode(parties: Parties, served: tuple[str, ...]) -> None:
    for mode in served:
        for facts in link(parties.forwarder, parties.receiver, served, mode):
            modes.check(MODES[mode], facts)
            assert (facts.authentication == "mldsa65") is (mode == "pq-auth")


def test_a_listener_expires_with_its_first_certificate(parties: Parties) -> None:
    short = issue(parties.mldsa, "short", kind="mldsa65", days=1, identities=["receiver"], hosts=["localhost"])
    mldsa_files = as_mldsa(short)
    receiver = msgspec.structs.replace(parties.receiver, mldsa=mldsa_files)
    for served in (["hybrid", "pq-auth"], ["pq-auth"]):
        left = stacks.server([MODES[mode] for mode in served], receiver).expires - datetime.datetime.now(datetime.UTC)
        assert left < datetime.timedelta(days=1)
    left = stacks.server([MODES["hybrid"]], receiver).expires - datetime.datetime.now(datetime.UTC)
    assert left > datetime.timedelta(days=80)


def test_an_ecdsa_leaf_of_an_mldsa_authority_serves_the_other_modes(parties: Parties) -> None:
    leaves = {party: issue(parties.mldsa, f"{party}-classical", **NAMES[party]) for party in NAMES}
    client, server = (Credentials(*msgspec.structs.astuple(leaves[party])) for party in ("forwarder", "receiver"))
    for facts in link(client, server, ["hybrid"], "hybrid"):
        modes.check(MODES["hybrid"], facts)
        assert facts.authentication == "ecdsa_secp256r1_sha256"


# -- what it refuses after the handshake, by the chain ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("ec", "ecdsa_secp256r1_sha256"), ("rsa", "rsa_pkcs1_sha256"), ("mldsa44", "mldsa44")],
)
def test_a_weaker_ca_over_an_mldsa65_leaf_is_refused_by_either_end(
    parties: Parties, tmp_path: Path, kind: str, scheme: str
) -> None:
    weaker = pki.create_authority(tmp_path, kind=kind)
    client = under(weaker, "forwarder", parties.forwarder)
    server = under(weaker, "receiver", parties.receiver)
    reason = f"this one is by {scheme}: its own key is ML-DSA-65, but its chain is not signed as strongly"
    for near, far in (
        link(client, trusting(parties.receiver, client), ["pq-auth"]),
        link(trusting(parties.forwarder, server), server, ["pq-auth"]),
    ):
        refused, accepted = (near, far) if near.authentication == scheme else (far, near)
        assert refused.certificate_algorithm == "ML-DSA-65"
        with pytest.raises(PolicyViolation, match=reason):
            modes.check(PQ_AUTH, refused)
        modes.check(PQ_AUTH, accepted)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_classical_chain_that_the_configuration_allows_is_accepted_and_shown_as_what_it_is(
    parties: Parties, tmp_path: Path, kind: str
) -> None:
    classical = pki.create_authority(tmp_path, kind=kind)
    allowed = {}
    for party, credentials in (("forwarder", parties.forwarder), ("receiver", parties.receiver)):
        files = under(classical, party, credentials)
        assert files.mldsa is not None
        allowing = msgspec.structs.replace(files.mldsa, allow_classical_chain=True)
        allowed[party] = msgspec.structs.replace(files, mldsa=allowing)
    assert problems(allowed["forwarder"], "pq-auth") == problems(allowed["receiver"], "pq-auth", accepting=True) == []
    near = stacks.client(PQ_AUTH, allowed["forwarder"]).endpoint("localhost")
    far = stacks.server([PQ_AUTH], allowed["receiver"]).endpoint()
    shake_hands(near, far)
    for end, party in ((near, "forwarder"), (far, "receiver")):
        facts = end.facts()
        assert facts.authentication == {"ec": "ecdsa_secp256r1_sha256", "rsa": "rsa_pkcs1_sha256"}[kind]
        modes.check(stacks.demanded(PQ_AUTH, allowed[party]), facts)
        with pytest.raises(PolicyViolation):
            modes.check(PQ_AUTH, facts)


def test_an_allowed_classical_chain_does_not_allow_a_classical_leaf(parties: Parties) -> None:
    files = under(parties.mldsa, "forwarder", parties.forwarder, "ec")
    assert files.mldsa is not None
    allowing = msgspec.structs.replace(files.mldsa, allow_classical_chain=True)
    (found,) = problems(msgspec.structs.replace(files, mldsa=allowing), "pq-auth")
    assert found.startswith("tls.mldsa.certificate: its key is EC secp256r1; ")
    facts = Facts(
        version="TLSv1.3",
        group="X25519MLKEM768",
        cipher="",
        identities=(),
        authentication="ecdsa_secp256r1_sha256",
        certificate_algorithm="EC secp256r1",
    )
    with pytest.raises(PolicyViolation):
        modes.check(msgspec.structs.replace(PQ_AUTH, classical_chain=True), facts)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_an_ecdsa_leaf_under_another_classical_ca_passes_hybrid(parties: Parties, tmp_path: Path, kind: str) -> None:
    authority = pki.create_authority(tmp_path, kind=kind)
    client, server = (
        Credentials(*msgspec.structs.astuple(issue(authority, party, **NAMES[party])))
        for party in ("forwarder", "receiver")
    )
    assert problems(client, "hybrid") == problems(server, "hybrid", accepting=True) == []
    for facts in link(client, server, ["hybrid"], "hybrid"):
        modes.check(MODES["hybrid"], facts)


def test_an_intermediate_does_not_hide_an_ecdsa_root(parties: Parties, tmp_path: Path) -> None:
    server = trusting(under(intermediate(tmp_path), "receiver", parties.receiver), parties.receiver)
    assert server.mldsa is not None
    chain = server.mldsa.certificate
    chain.write_bytes(chain.read_bytes() + (tmp_path / "ca.pem").read_bytes())
    server = msgspec.structs.replace(
        server, mldsa=msgspec.structs.replace(server.mldsa, ca=parties.mldsa.directory / "ca.pem")
    )
    assert parties.forwarder.mldsa is not None
    client = msgspec.structs.replace(parties.forwarder.mldsa, ca=tmp_path / "root.pem")
    near, _ = link(msgspec.structs.replace(parties.forwarder, mldsa=client), server, ["pq-auth"])
    assert (near.certificate_algorithm, near.authentication) == ("ML-DSA-65", "ecdsa_secp256r1_sha256")
    with pytest.raises(PolicyViolation, match="its chain is not signed as strongly"):
        modes.check(PQ_AUTH, near)


def intermediate(directory: Path) -> pki.Authority:
    """An ML-DSA authority below an ECDSA root (root.pem)."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), mldsa.MLDSA65PrivateKey.generate()
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    def sign(name: str, public: ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey) -> x509.Certificate:
        subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, "root"))
        return (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root_key, hashes.SHA256())
        )

    root, below = sign("root", root_key.public_key()), sign("below", key.public_key())
    for name, certificate in (("root.pem", root), ("ca.pem", below)):
        (directory / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return pki.Authority(directory, below, key)


# -- what it refuses in the handshake --------------------------------------------------------------------------------


def refusal(client: Credentials, server: Credentials, served: list[str], mode: str = "pq-auth") -> tuple[str, str]:
    """The reason that the server gives in its log, and the alert that the client gets."""
    near, far = ends(client, server, served, mode)
    with pytest.raises(HandshakeFailed) as at_server:
        shake_hands(near, far)
    with pytest.raises(HandshakeFailed) as at_client:
        if near.complete:
            near.read()
        else:
            near.handshake()
    assert at_client.value.alert is not None
    return at_server.value.reason, at_client.value.alert


def test_a_client_of_another_mode_shares_no_signature_algorithm(parties: Parties) -> None:
    found = refusal(parties.forwarder, parties.receiver, ["pq-auth"], "hybrid")
    assert found == ("no_shared_signature_algorithm", "handshake failure")


def test_a_listener_of_other_modes_cannot_authenticate_itself(parties: Parties) -> None:
    found = refusal(parties.forwarder, parties.receiver, ["hybrid", "classical"])
    assert found == ("no_shared_signature_algorithm", "handshake failure")


@pytest.mark.parametrize("kind", ["ec", "mldsa44"])
def test_a_client_with_a_weaker_leaf_has_none_to_show(parties: Parties, kind: str) -> None:
    client = under(parties.mldsa, "forwarder", parties.forwarder, kind)
    assert refusal(client, parties.receiver, ["pq-auth"]) == ("no_client_certificate", "certificate required")
    mixed = refusal(client, parties.receiver, ["hybrid", "pq-auth"])
    assert mixed == ("no_client_certificate", "certificate required")


def test_an_authority_that_is_not_trusted_is_refused_by_both_ends(parties: Parties, tmp_path: Path) -> None:
    stranger = pki.create_authority(tmp_path, kind="mldsa65")
    files = issue(stranger, "forwarder", kind="mldsa65", identities=[FORWARDER])
    client = msgspec.structs.replace(
        parties.forwarder,
        mldsa=MlDsaFiles(files.certificate, files.key, parties.mldsa.directory / "ca.pem"),
    )
    assert refusal(client, parties.receiver, ["pq-auth"])[0] == "unknown_ca"


# -- what it finds in its own files ----------------------------------------------------------------------------------


REMEDY = "mode pq-auth demands mldsa65 in every place: use `logfwd pki init` and `issue` with --key mldsa65"


@pytest.mark.parametrize(("kind", "key"), [("ec", "EC secp256r1"), ("rsa", "RSA 3072"), ("mldsa44", "ML-DSA-44")])
def test_a_leaf_of_another_kind_is_found_in_our_own_files(parties: Parties, kind: str, key: str) -> None:
    wrong = under(parties.mldsa, "receiver", parties.receiver, kind)
    assert problems(wrong, "hybrid", "pq-auth", accepting=True) == [
        f"tls.mldsa.certificate: its key is {key}; {REMEDY}"
    ]
    assert problems(wrong, "hybrid", accepting=True) == []
    for make in (stacks.client, lambda mode, files: stacks.server([mode], files)):
        with pytest.raises(ConfigError, match=rf"tls\.mldsa\.certificate: its key is {key}"):
            make(PQ_AUTH, wrong)


@pytest.mark.parametrize(
    ("kind", "signature", "key"),
    [("ec", "ECDSA with SHA-256", "EC secp256r1"), ("rsa", "RSA with SHA-256", "RSA 3072")],
)
def test_an_authority_of_another_kind_is_found_in_our_own_files(
    parties: Parties, tmp_path: Path, kind: str, signature: str, key: str
) -> None:
    wrong = under(pki.create_authority(tmp_path, kind=kind), "forwarder", parties.forwarder)
    assert problems(wrong, "pq-auth") == [
        f"tls.mldsa.certificate: CN={FORWARDER} is signed with {signature}; {REMEDY}",
        f"tls.mldsa.ca: the key of CN=logfwd private CA is {key}; {REMEDY}",
    ]
    with pytest.raises(ConfigError, match=r"tls\.mldsa\.ca"):
        stacks.client(PQ_AUTH, wrong)


def test_a_mode_without_its_files_is_named_with_the_remedy(parties: Parties) -> None:
    without = msgspec.structs.replace(parties.forwarder, mldsa=None)
    assert problems(without, "hybrid", "pq-auth") == [
        "tls.mldsa: is missing; mode pq-auth needs [tls.mldsa] with certificate, key and ca; "
        "create them with `logfwd pki init` and `logfwd pki issue`, both with --key mldsa65"
    ]
    with pytest.raises(ConfigError, match=r"pq-auth: tls\.mldsa: is missing"):
        stacks.client(PQ_AUTH, without)


@pytest.mark.parametrize("mode", ["hybrid", "pq-auth"])
@pytest.mark.parametrize("accepting", [False, True])
def test_an_expired_certificate_is_found_in_our_own_files(parties: Parties, mode: str, accepting: bool) -> None:
    section, kind = MODES[mode].section, "mldsa65" if mode == "pq-auth" else "ec"
    authority = parties.mldsa if mode == "pq-auth" else parties.authority
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    files = issue(authority, f"expired-{kind}", kind=kind, days=2, not_before=start, force=True, **NAMES["receiver"])
    (found,) = problems(everywhere(files), mode, accepting=accepting)
    assert found.startswith(f"{section}.certificate: peers would refuse it: ")
    assert found.endswith("; issue it again with `logfwd pki issue`")


def test_a_chain_of_another_authority_than_ours_is_left_to_the_peers(parties: Parties, tmp_path: Path) -> None:
    other = pki.create_authority(tmp_path, name="another CA")
    files = issue(other, "receiver", **NAMES["receiver"])
    assert problems(Credentials(files.certificate, files.key, parties.receiver.ca), "hybrid", accepting=True) == []


@pytest.mark.parametrize("host", ["10.0.0.7", "log_host.example", "*.example.net", None])
@pytest.mark.parametrize("kind", ["ec", "mldsa65"])
def test_a_receiver_may_have_any_name(parties: Parties, tmp_path: Path, host: str | None, kind: str) -> None:
    authority = parties.authority if kind == "ec" else parties.mldsa
    hosts = [] if host is None else [host]
    names = {"identities": ["spiffe://a/receiver"], "hosts": hosts}
    files = issue(authority, "any-name", kind=kind, force=True, role="receiver", **names)
    assert problems(everywhere(files), "hybrid" if kind == "ec" else "pq-auth", accepting=True) == []
