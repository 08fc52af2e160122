"""Revocation lists: which are believed, and whom they shut out."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from logfwd.commands.pki import pki
from streams.errors import ConfigError
from streams.security import stacks
from streams.security.endpoint import CertificateId, Files
from streams.security.modes import MODES
from streams.security.pki import Authority, certificate_id, create_authority
from streams.security.revocation import NONE, Revoked, revoke
from tests.streams.security.tls13.support import Authority as AnyAuthority
from tests.support.tls import Parties, shake_hands

NOW = datetime.datetime.now(datetime.UTC)
LATER = NOW + datetime.timedelta(days=31)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def files(authority: Authority) -> Files:
    return Files(Path(), Path(), authority.directory / "ca.pem")


def why(revoked: Revoked, *chain: CertificateId, required: bool = False, now: datetime.datetime = NOW) -> str:
    return revoked.why(chain, required=required, now=now)


@pytest.mark.parametrize("kind", ["ec", "rsa", "mldsa65"])
def test_a_revoked_certificate_is_known_by_issuer_and_number(tmp_path: Path, kind: str) -> None:
    authority = create_authority(tmp_path / "pki", kind=kind)
    leaves = [authority.issue(identities=[name], hosts=[], out=tmp_path / name).certificate for name in ("a", "b", "c")]
    a, b, c = (certificate_id(certificate(leaf)) for leaf in leaves)
    path, count = revoke(authority, [certificate(leaves[0])], days=30)
    assert count == 1
    revoked = Revoked.load([path], [files(authority)])
    assert why(revoked, a) == f"the certificate with serial number {a.serial:x} was revoked"
    assert why(revoked, b) == ""
    assert why(revoked, CertificateId(b"another", a.serial)) == ""
    assert why(revoked, b, a), "a certificate above it"
    assert revoke(authority, [certificate(leaves[0]), certificate(leaves[2])], days=30)[1] == 2
    again = Revoked.load([path], [files(authority)])
    assert [bool(why(again, each)) for each in (a, b, c)] == [True, False, True]


def test_a_list_stays_in_force_after_its_time_unless_one_is_required(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "pki")
    leaves = [authority.issue(identities=[name], hosts=[], out=tmp_path / name).certificate for name in ("a", "b")]
    a, b = (certificate_id(certificate(leaf)) for leaf in leaves)
    path, _ = revoke(authority, [certificate(leaves[0])], days=30)
    revoked = Revoked.load([path], [files(authority)])
    assert revoked.next_update is not None
    assert NOW < revoked.next_update < LATER
    assert why(revoked, a, now=LATER)
    assert why(revoked, b, now=LATER) == ""
    assert why(revoked, b, required=True) == ""
    for refused in (
        why(revoked, b, required=True, now=LATER),
        why(revoked, CertificateId(b"another", 1), required=True),
        why(NONE, b, required=True),
        why(revoked, required=True),
    ):
        assert refused == "there is no revocation list in force of the authority that issued the certificate"
    assert why(NONE, b) == ""


def test_a_list_that_no_trusted_authority_has_signed_is_refused(tmp_path: Path) -> None:
    ours, other = create_authority(tmp_path / "ours"), create_authority(tmp_path / "other")
    path, _ = revoke(other, [], days=30)
    with pytest.raises(ConfigError, match=r"crl\.pem: crl: no authority of the `ca` files has signed it"):
        Revoked.load([path], [files(ours)])
    assert Revoked.load([path], [files(ours), files(other)]).next_update is not None
    (tmp_path / "nonsense").write_text("nonsense")
    for wrong in (tmp_path / "nonsense", tmp_path / "none", ours.directory / "ca.pem"):
        with pytest.raises(ConfigError, match=f"{wrong.name}: crl: cannot be read as a revocation list"):
            Revoked.load([wrong], [files(ours)])


def test_a_list_in_der_is_read(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "pki")
    path, _ = revoke(authority, [], days=30)
    path.write_bytes(x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER))
    assert Revoked.load([path], [files(authority)]).next_update is not None


@pytest.mark.parametrize("stack", ["openssl", "tls13"])
@pytest.mark.parametrize("depth", [0, 1])
def test_every_stack_tells_the_whole_chain_of_a_peer(tmp_path: Path, stack: str, depth: int) -> None:
    root = AnyAuthority(name="root")
    signer = AnyAuthority(name="between", parent=root) if depth else root
    near = signer.issue(tmp_path / "near", names=["spiffe://test/a"], root=root)
    far = signer.issue(tmp_path / "far", root=root)
    mode = msgspec.structs.replace(MODES["hybrid"], stack=stack)
    client, server = stacks.client(mode, near).endpoint("localhost"), stacks.server([mode], far).endpoint()
    shake_hands(client, server)
    shown = x509.load_pem_x509_certificates(near.certificate.read_bytes())
    assert len(shown) == 1 + depth
    assert server.facts().certificates == tuple(map(certificate_id, shown))


def test_an_operator_revokes_and_renews(tmp_path: Path) -> None:
    parties, runner = Parties(tmp_path / "pki"), CliRunner()
    leaf = parties.forwarder.certificate
    done = runner.invoke(pki, ["revoke", str(parties.directory), str(leaf)])
    assert done.output == f"wrote {parties.directory / 'crl.pem'}: 1 revoked, the next list is due in 30 days\n"
    assert "1 revoked" in runner.invoke(pki, ["revoke", str(parties.directory), "--days", "1"]).output
    revoked = Revoked.load([parties.directory / "crl.pem"], [parties.receiver])
    assert why(revoked, certificate_id(certificate(leaf)))
    assert why(revoked, certificate_id(certificate(parties.receiver.certificate))) == ""
    other = runner.invoke(pki, ["revoke", str(parties.mldsa.directory), str(leaf)])
    assert other.exit_code == 1
