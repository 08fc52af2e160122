"""Delegated credentials as files: made by `logfwd pki delegate`, read for a handshake, refused with a remedy."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from logfwd.commands.pki import pki as command
from streams.security import pki
from streams.security.tls13 import delegated_files
from streams.security.tls13.certificates import Trust
from streams.security.tls13.delegated import CLIENT, SERVER
from streams.security.tls13.kem import KEM_CODES, KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.schemes import SCHEME_CODES, KeySigner
from streams.security.tls13.settings import Settings
from streams.security.tls13.signature import Credential, Signature
from tests.streams.security.tls13.support import ALPN, HOST, SCHEME_OF, client_of, connect, exchange, server_of

NAME = "spiffe://test/forwarder"
ROLES = {"receiver": (SERVER, ["--host", HOST]), "forwarder": (CLIENT, ["--identity", NAME])}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ML-DSA authority, and a leaf of each role that delegates."""
    made = tmp_path_factory.mktemp("pki")
    pki.create_authority(made, kind="mldsa65")
    for role, (_, names) in ROLES.items():
        result = run("issue", made, "--key", "mldsa65", *names, "--delegates", "--out", role)
        assert result.exit_code == 0, result.output
    return made


def delegate(directory: Path, role: str, out: Path, *more: object) -> Result:
    leaf = ("--certificate", directory / f"{role}.pem", "--signer", directory / f"{role}.key")
    return run("delegate", *leaf, "--role", role, "--out", out, *more)


def leaf_of(directory: Path, role: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / f"{role}.pem").read_bytes())


def loaded(directory: Path, role: str, out: Path) -> tuple[bytes, Any, Any]:
    """The leaf, the delegated key and the credential."""
    leaf, data = leaf_of(directory, role), out.read_bytes()
    der, key = leaf.public_bytes(serialization.Encoding.DER), serialization.load_pem_private_key(data, None)
    return der, key, delegated_files.read(data, leaf, key.public_key(), (ROLES[role][0],))


def settings(directory: Path, way: Any) -> Settings:
    root = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    return Settings(groups=(0x1D,), suites=(0x1301,), authentication=way, trust=Trust([root]), alpn=ALPN)


def test_the_command_makes_a_kem_key_with_which_both_sides_authenticate(directory: Path, tmp_path: Path) -> None:
    kems, schemes, ways = (KEM_CODES["ML-KEM-768"],), (SCHEME_CODES["mldsa65"],), {}
    for role in ROLES:
        out = tmp_path / f"{role}.dc"
        result = delegate(directory, role, out)
        assert (result.exit_code, f"for a {role}" in result.output) == (0, True)
        assert out.stat().st_mode & 0o777 == 0o600
        der, key, found = loaded(directory, role, out)
        ways[role] = KemAuthentication(kems, schemes, KemCredential((der,), KemKey(key), found), kems, schemes)
    client, server = (
        client_of(settings(directory, ways["forwarder"])),
        server_of(settings(directory, ways["receiver"])),
    )
    connect(client, server)
    exchange(client, server)
    assert (client.facts().identities, server.facts().identities) == ((HOST,), (NAME,))
    assert client.facts().authentication == server.facts().authentication == "ML-KEM-768"


@pytest.mark.parametrize(("kind", "name"), [("ec", "p256"), ("mldsa44", "mldsa44"), ("mldsa65", "mldsa65")])
def test_it_makes_keys_that_sign(kind: str, name: str, directory: Path, tmp_path: Path) -> None:
    every, ways = tuple(SCHEME_CODES.values()), {}
    for role in ROLES:
        assert delegate(directory, role, tmp_path / role, "--key", kind).exit_code == 0
        der, key, found = loaded(directory, role, tmp_path / role)
        signer = KeySigner(serialization.load_pem_private_key((directory / f"{role}.key").read_bytes(), None))
        ways[role] = Signature(every, Credential((der,), signer, found, KeySigner(key)), every)
    client, server = (
        client_of(settings(directory, ways["forwarder"])),
        server_of(settings(directory, ways["receiver"])),
    )
    connect(client, server)
    assert client._shake.agreed.proof == server._shake.agreed.proof == SCHEME_OF[name]


def test_it_lasts_for_the_hours_asked_for_and_no_longer_than_its_certificate(directory: Path, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    assert delegate(directory, "receiver", tmp_path / "short", "--hours", 2).exit_code == 0
    found = loaded(directory, "receiver", tmp_path / "short")[2]
    assert abs(found.until - now - datetime.timedelta(hours=2)) < datetime.timedelta(minutes=2)
    authority = pki.Authority.load(directory)
    begun = now - datetime.timedelta(hours=20)
    authority.issue(
        identities=[], hosts=[HOST], kind="mldsa65", days=1, not_before=begun, delegates=True, out=tmp_path / "receiver"
    )
    assert delegate(tmp_path, "receiver", tmp_path / "capped").exit_code == 0
    found = loaded(tmp_path, "receiver", tmp_path / "capped")[2]
    assert found.until <= leaf_of(tmp_path, "receiver").not_valid_after_utc
    for hours in ("24.5", "0", "-1"):
        assert delegate(directory, "receiver", tmp_path / "long", "--hours", hours).exit_code == 2


def test_a_file_is_replaced_only_on_request(directory: Path, tmp_path: Path) -> None:
    assert delegate(directory, "receiver", tmp_path / "dc").exit_code == 0
    before = (tmp_path / "dc").read_bytes()
    refused = delegate(directory, "receiver", tmp_path / "dc")
    assert (refused.exit_code, "use --force" in refused.output) == (1, True)
    assert (tmp_path / "dc").read_bytes() == before
    assert delegate(directory, "receiver", tmp_path / "dc", "--force").exit_code == 0
    assert (tmp_path / "dc").read_bytes() != before


def test_what_cannot_delegate_is_refused_with_a_remedy(directory: Path, tmp_path: Path) -> None:
    authority = pki.Authority.load(directory)
    authority.issue(identities=[], hosts=[HOST], kind="mldsa65", out=tmp_path / "receiver")
    refused = delegate(tmp_path, "receiver", tmp_path / "dc")
    assert "does not permit delegation" in refused.output
    assert "logfwd pki issue --delegates" in refused.output
    (tmp_path / "receiver.key").write_bytes((directory / "receiver.key").read_bytes())
    assert "is not the key of" in delegate(tmp_path, "receiver", tmp_path / "dc").output
    (tmp_path / "receiver.key").write_text("nonsense")
    assert "not a key that signs" in delegate(tmp_path, "receiver", tmp_path / "dc").output
    (tmp_path / "receiver.pem").write_text("nonsense")
    assert "not a certificate" in delegate(tmp_path, "receiver", tmp_path / "dc").output
    refused = run("issue", directory, "--key", "mlkem768", "--host", HOST, "--delegates", "--out", "kem")
    assert "its key signs nothing" in refused.output
    assert not (tmp_path / "dc").exists()


def test_a_credential_is_of_no_use_in_the_other_role_or_with_another_certificate(
    directory: Path, tmp_path: Path
) -> None:
    assert delegate(directory, "receiver", tmp_path / "dc").exit_code == 0
    data, leaf = (tmp_path / "dc").read_bytes(), leaf_of(directory, "receiver")
    key = serialization.load_pem_private_key(data, None).public_key()
    assert delegated_files.read(data, leaf, key).raw in base64.b64decode(b"".join(data.split(b"-----")[6].split()))
    with pytest.raises(ValueError, match="its signature is wrong"):
        delegated_files.read(data, leaf, key, (CLIENT,))
    with pytest.raises(ValueError, match="its signature is wrong"):
        delegated_files.read(data, leaf_of(directory, "forwarder"), key)
    with pytest.raises(ValueError, match="for another key"):
        delegated_files.read(data, leaf, leaf.public_key())
    with pytest.raises(ValueError, match="no delegated credential"):
        delegated_files.read((directory / "receiver.key").read_bytes(), leaf, key)
