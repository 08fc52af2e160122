"""The authority: what it writes, what it refuses to overwrite, and what it says of a certificate."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from logfwd.commands.pki import pki
from logreceiver.links.grants import Claim, Grants
from streams.errors import ConfigError
from streams.security.pki import PkiError, create_authority


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(pki, list(arguments))
    return result.exit_code, result.output


def test_init_issue_and_show_make_what_an_operator_needs(tmp_path: Path) -> None:
    directory = str(tmp_path / "pki")
    assert run("init", directory)[0] == 0
    assert run("issue", directory, "--identity", "spiffe://site/host-1", "--out", "forwarder")[0] == 0
    assert (
        run(
            "issue",
            directory,
            "--identity",
            "receiver",
            "--host",
            "10.0.0.1",
            "--host",
            "logs.example",
            "--out",
            "receiver",
        )[0]
        == 0
    )
    code, output = run("show", directory, "--json")
    rows = {Path(row["file"]).name: row for row in json.loads(output)}
    assert code == 0
    assert rows["forwarder.pem"]["names"] == ["spiffe://site/host-1"]
    assert rows["receiver.pem"]["names"] == ["receiver", "10.0.0.1", "logs.example"]
    assert "expires in 89 days" in run("show", directory)[1]


def test_keys_are_private_and_never_overwritten_unasked(tmp_path: Path) -> None:
    directory = str(tmp_path / "pki")
    run("init", directory)
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    for name in ("ca.key", "grant.key"):
        assert stat.S_IMODE((tmp_path / "pki" / name).stat().st_mode) == 0o600
    before = (tmp_path / "pki" / "ca.key").read_bytes()
    code, output = run("init", directory)
    assert (code, "--force" in output) == (1, True)
    assert (tmp_path / "pki" / "ca.key").read_bytes() == before
    assert run("init", directory, "--force")[0] == 0


def test_the_root_signs_leaves_alone(tmp_path: Path) -> None:
    root = create_authority(tmp_path).certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


@pytest.mark.parametrize(
    ("authority", "leaf", "key", "signature"),
    [
        ("ec", "ec", "EC secp256r1", "ECDSA with SHA-256"),
        ("ec", "rsa", "RSA 3072", "ECDSA with SHA-256"),
        ("rsa", "ec", "EC secp256r1", "RSA with SHA-256"),
        ("mldsa65", "mldsa65", "ML-DSA-65", "ML-DSA-65"),
        ("mldsa65", "ec", "EC secp256r1", "ML-DSA-65"),
        ("mldsa44", "mldsa44", "ML-DSA-44", "ML-DSA-44"),
    ],
)
def test_each_kind_of_key_makes_an_authority_and_a_leaf(
    tmp_path: Path, authority: str, leaf: str, key: str, signature: str
) -> None:
    assert run("init", str(tmp_path), "--key", authority)[0] == 0
    arguments = ("--identity", "spiffe://site/host", "--host", "localhost", "--role", "both", "--out", "leaf")
    assert run("issue", str(tmp_path), "--key", leaf, *arguments)[0] == 0
    (row,) = json.loads(run("show", str(tmp_path / "leaf.pem"), "--json")[1])
    assert (row["key"], row["signature"], row["chain"]) == (key, signature, [])
    assert f"issued by CN=logfwd private CA, signed with {signature}\n" in run("show", str(tmp_path / "leaf.pem"))[1]
    root, made = (x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("ca.pem", "leaf.pem"))
    store = PolicyBuilder().store(Store([root]))
    assert store.build_server_verifier(x509.DNSName("localhost")).verify(made, []) == [made, root]
    assert store.build_client_verifier().verify(made, []).chain == [made, root]


@pytest.mark.parametrize(
    ("authority", "leaf", "noted"),
    [("ec", "mldsa65", True), ("rsa", "mldsa44", True), ("mldsa65", "mldsa65", False), ("mldsa65", "ec", False)],
)
def test_issue_says_that_a_leaf_is_no_stronger_than_its_authority(
    tmp_path: Path, authority: str, leaf: str, noted: bool
) -> None:
    run("init", str(tmp_path), "--key", authority)
    code, output = run("issue", str(tmp_path), "--key", leaf, "--identity", "x", "--out", "leaf")
    assert code == 0
    assert ("mode pq-auth refuses it" in output) is noted


def test_show_prints_the_rest_of_the_chain(tmp_path: Path) -> None:
    run("init", str(tmp_path), "--key", "mldsa65")
    run("issue", str(tmp_path), "--identity", "x", "--out", "leaf")
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "leaf.pem").read_bytes() + (tmp_path / "ca.pem").read_bytes())
    first, second = run("show", str(chain))[1].splitlines()
    assert first.startswith(f"{chain}: x; EC secp256r1; expires in 89 days")
    assert second == "  then CN=logfwd private CA; ML-DSA-65; signed with ML-DSA-65"


@pytest.mark.parametrize("kind", ["ec", "mldsa65"])
def test_a_key_is_born_private_in_a_file_that_nobody_else_can_have_opened(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int, int]] = []
    real = os.open

    def noted(path: os.PathLike[str], flags: int, mode: int = 0o777, **more: int) -> int:
        opened.append((os.fspath(path), flags, mode))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", noted)
    authority = create_authority(tmp_path, kind=kind)
    authority.issue(identities=["x"], hosts=[], out=tmp_path / "leaf", kind=kind)
    authority.issue(identities=["x"], hosts=[], out=tmp_path / "leaf", kind=kind, force=True)
    keys = [(flags, mode) for path, flags, mode in opened if ".key" in path]
    assert len(keys) == 4
    assert all(flags & os.O_EXCL and mode == 0o600 for flags, mode in keys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem", "grant.key", "leaf.key", "leaf.pem"]


def test_a_missing_authority_is_named_with_the_remedy(tmp_path: Path) -> None:
    code, output = run("issue", str(tmp_path), "--identity", "x", "--out", "leaf")
    assert code == 1
    assert "logfwd pki init" in output


@pytest.mark.parametrize("name", ["", "spiffe://exämple.net/host", "exämple.net"])
def test_what_cannot_be_a_name_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    create_authority(tmp_path)
    code, output = run("issue", str(tmp_path), "--identity", name, "--out", "leaf")
    assert (code, output.count("\n")) == (1, 1)
    assert "cannot be a name" in output


def test_an_authority_with_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path)
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "ca.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    code, output = run("issue", str(tmp_path), "--identity", "x", "--out", "leaf")
    assert code == 1
    assert "a key of the kind Ed25519 cannot be used" in output
    assert "logfwd pki init --key ec|rsa|mldsa65|mldsa44" in output


def test_an_authority_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output = run("init", str(tmp_path / "file" / "pki"))
    assert code == 1
    assert "cannot be created" in output


def test_a_leaf_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="at least one"):
        create_authority(tmp_path).issue(identities=[], hosts=[], out=tmp_path / "leaf")


CLAIM = Claim("spiffe://a", "http", "cluster", "http", 0, 1000)


def test_a_grant_speaks_for_its_claim_alone(tmp_path: Path) -> None:
    create_authority(tmp_path)
    grants = Grants.load(tmp_path / "grant.key")
    grant = grants.sign(CLAIM)
    assert grants.honours(grant, CLAIM)
    for field, value in (
        ("identity", "spiffe://b"),
        ("stream", "dns"),
        ("cluster_id", "x"),
        ("topic", "x"),
        ("partition", 1),
        ("producer_id", 1001),
    ):
        other = msgspec.structs.replace(CLAIM, **{field: value})
        assert not grants.honours(grant, other), field
    for damaged in (b"", b":", grant[:-1], b"ffffffff" + grant[8:], b"\xff" * 40):
        assert not grants.honours(damaged, CLAIM)


def test_an_older_key_is_honoured_while_the_newest_signs(tmp_path: Path) -> None:
    create_authority(tmp_path)
    old = Grants.load(tmp_path / "grant.key").sign(CLAIM)
    path = tmp_path / "grant.key"
    path.write_text(f"beef:{'ab' * 32}\n" + path.read_text())
    grants = Grants.load(path)
    assert grants.honours(old, CLAIM)
    assert grants.sign(CLAIM).startswith(b"beef:")


@pytest.mark.parametrize("text", ["", "nonsense", "id:zz", "id:abcd"])
def test_a_key_file_that_is_no_use_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "grant.key").write_text(text)
    with pytest.raises(ConfigError, match=r"grant\.key"):
        Grants.load(tmp_path / "grant.key")


def test_a_leaf_with_a_kems_key_is_for_one_role_and_no_authority_has_one(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    assert run("init", str(directory), "--key", "mlkem768")[0] == 2
    run("init", str(directory), "--key", "mldsa65")
    arguments = ["issue", str(directory), "--key", "mlkem768", "--identity", "spiffe://site/host-1"]
    assert run(*arguments, "--out", "forwarder")[0] == 0
    assert run(*arguments, "--host", "logs.example", "--out", "receiver")[0] == 0
    for name, purpose in (("forwarder", "CLIENT_AUTH"), ("receiver", "SERVER_AUTH")):
        leaf = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_encipherment, usage.digital_signature) == (True, False)
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(purposes) == [getattr(ExtendedKeyUsageOID, purpose)]
        key = (directory / f"{name}.key").read_bytes()
        assert len(serialization.load_pem_private_key(key, None).private_bytes_raw()) == 64  # type: ignore[union-attr]
    assert "ML-KEM-768" in run("show", str(directory / "forwarder.pem"))[1]


def test_an_ecdsa_authority_above_a_kems_key_is_noted(tmp_path: Path) -> None:
    directory = str(tmp_path / "pki")
    run("init", directory)
    output = run("issue", directory, "--key", "mlkem768", "--identity", "a", "--out", "a")[1]
    assert "mode kemtls refuses it" in output


# -- renewal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authority", "words"),
    [
        ("ec", ("--identity", "spiffe://site/host-1")),
        ("ec", ("--identity", "receiver", "--host", "10.0.0.1", "--host", "logs.example", "--role", "both")),
        ("mldsa65", ("--key", "mldsa65", "--host", "::1", "--host", "logs.example", "--delegates", "--days", "1")),
        ("mldsa65", ("--key", "mlkem768", "--identity", "spiffe://site/host-1")),
    ],
)
def test_a_renewed_certificate_has_a_new_key_and_all_else_as_before(
    tmp_path: Path, authority: str, words: tuple[str, ...]
) -> None:
    assert run("init", str(tmp_path), "--key", authority)[0] == 0
    assert run("issue", str(tmp_path), "--out", "leaf", *words)[0] == 0
    path = tmp_path / "leaf.pem"
    before, key = x509.load_pem_x509_certificate(path.read_bytes()), (tmp_path / "leaf.key").read_bytes()
    code, output = run("renew", str(tmp_path), str(path))
    assert (code, output.startswith(f"renewed {path} and {tmp_path / 'leaf.key'}")) == (0, True), output
    after = x509.load_pem_x509_certificate(path.read_bytes())
    assert (tmp_path / "leaf.key").read_bytes() != key
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert type(after.public_key()) is type(before.public_key())
    same = (x509.ExtendedKeyUsage, x509.KeyUsage, x509.BasicConstraints)
    assert [after.extensions.get_extension_for_class(each) for each in same] == [
        before.extensions.get_extension_for_class(each) for each in same
    ]
    assert names_of(after) == names_of(before)
    assert {each.oid for each in after.extensions} == {each.oid for each in before.extensions}
    lasts = (after.not_valid_after_utc - after.not_valid_before_utc).days
    assert lasts == (before.not_valid_after_utc - before.not_valid_before_utc).days


def names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_only_what_ends_soon_is_renewed_if_that_is_asked_and_never_what_others_have_issued(tmp_path: Path) -> None:
    run("init", str(tmp_path))
    run("issue", str(tmp_path), "--identity", "a", "--out", "a", "--days", "90")
    run("issue", str(tmp_path), "--identity", "b", "--out", "b", "--days", "9")
    paths = [str(tmp_path / name) for name in ("a.pem", "b.pem")]
    kept = (tmp_path / "a.pem").read_bytes()
    code, output = run("renew", str(tmp_path), *paths, "--within", "30", "--days", "60")
    assert (code, output.splitlines()[0]) == (0, f"kept {paths[0]}, which expires in 89 days")
    assert "b.key, valid for 60 days" in output.splitlines()[1]
    assert (tmp_path / "a.pem").read_bytes() == kept
    run("init", str(tmp_path / "other"), "--name", "somebody else")
    code, output = run("renew", str(tmp_path / "other"), paths[0])
    assert (code, "was not issued by the authority in" in output) == (1, True), output
    assert (tmp_path / "a.pem").read_bytes() == kept
    code, output = run("renew", str(tmp_path), str(tmp_path / "ca.pem"))
    assert (code, "is not a leaf" in output) == (1, True), output
