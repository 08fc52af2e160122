"""The authority: what it writes, what it refuses to overwrite, and what it says of a certificate."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from logfwd.pki_commands import pki
from logreceiver.grants import Claim, Grants
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
    assert "only elliptic-curve keys" in output


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
        other = Claim(**{**CLAIM.__dict__, field: value})
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
