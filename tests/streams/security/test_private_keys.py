"""Keys and chains as people have them: encrypted keys, intermediates that are trusted without their root."""

from __future__ import annotations

import datetime
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.lab.site import command
from streams.errors import HandshakeFailed
from streams.security import stacks
from streams.security.endpoint import Credentials, Files
from streams.security.modes import MODES
from tests.support.tls import Parties, problems, shake_hands

LEGACY = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path / "pki")


def encrypt(path: Path, form: serialization.PrivateFormat) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))


@pytest.mark.parametrize("form", [PKCS8, LEGACY])
@pytest.mark.parametrize("mode", ["hybrid", "kemtls"])
def test_an_encrypted_key_is_named_with_what_to_do(
    parties: Parties, form: serialization.PrivateFormat, mode: str
) -> None:
    if mode == "kemtls" and form is LEGACY:
        return  # such a key has no other form than PKCS #8
    files = stacks.files_for(MODES[mode], parties.forwarder)
    if mode == "hybrid":
        encrypt(files.key, form)
    else:
        files.key.write_bytes(files.key.read_bytes().replace(b"BEGIN PRIVATE", b"BEGIN ENCRYPTED PRIVATE"))
    (problem,) = problems(parties.forwarder, mode)
    assert problem.startswith(f"{files.section}.key: is encrypted")


def test_nobody_is_asked_for_a_password_at_a_terminal(parties: Parties, tmp_path: Path) -> None:
    encrypt(parties.forwarder.key, PKCS8)
    files = parties.forwarder
    (tmp_path / "streams.d").mkdir()
    (tmp_path / "streams.d" / "s.toml").write_text('name = "s"\n[source]\ntype = "stdin"\n')
    (tmp_path / "logfwd.toml").write_text(
        f'state_dir = "state"\nreceivers = ["localhost:1"]\n[tls]\ncertificate = "{files.certificate}"\n'
        f'key = "{files.key}"\nca = "{files.ca}"\n'
    )
    ours, terminal = pty.openpty()
    try:
        argv = [command("logfwd"), "validate", "-c", str(tmp_path / "logfwd.toml")]
        done = subprocess.run(
            argv,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=os.setsid if sys.platform == "linux" else None,
        )
    finally:
        os.close(ours)
        os.close(terminal)
    assert (done.returncode, "is encrypted" in done.stdout) == (78, True), done.stdout


def intermediate(parties: Parties) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A CA below the authority's root."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    root = parties.authority
    signer = serialization.load_pem_private_key((root.directory / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    ) | {"key_cert_sign": True, "crl_sign": True}
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return made, key


def test_an_intermediate_may_be_trusted_without_its_root(parties: Parties, tmp_path: Path) -> None:
    certificate, key = intermediate(parties)
    directory = tmp_path / "below"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (directory / "ca.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, PKCS8, plain))
    below = type(parties.authority).load(directory)
    sides = {}
    for name, hosts in (("near", []), ("far", ["localhost"])):
        leaf = below.issue(identities=[name], hosts=hosts, out=directory / name)
        sides[name] = Credentials(leaf.certificate, leaf.key, directory / "ca.pem")
    assert problems(sides["near"], "hybrid") == problems(sides["far"], "hybrid", accepting=True) == []
    mode = MODES["hybrid"]
    near = stacks.client(mode, sides["near"]).endpoint("localhost")
    shake_hands(near, stacks.server([mode], sides["far"]).endpoint())
    assert near.facts().authentication == "ecdsa_secp256r1_sha256"
    others = stacks.client(mode, parties.forwarder).endpoint("localhost")
    with pytest.raises(HandshakeFailed):
        shake_hands(others, stacks.server([mode], sides["far"]).endpoint())


def test_brokers_that_want_no_certificate_are_shown_none_and_theirs_is_checked(parties: Parties) -> None:
    mode = MODES["hybrid"]
    for ca, trusted in ((parties.forwarder.ca, True), (parties.forwarder.mldsa.ca, False)):  # type: ignore[union-attr]
        context = stacks.anonymous_context(mode, "sink.tls", ca)
        near = context.party.endpoint("localhost")  # type: ignore[attr-defined]
        files = Files(parties.receiver.certificate, parties.receiver.key, parties.receiver.ca)
        far = stacks.foreign_server(
            [mode], section="tls", certificate=files.certificate, key=files.key, ca=None, alpn=b"x"
        ).endpoint()
        if trusted:
            shake_hands(near, far)
            assert far.facts().identities == ()
        else:
            with pytest.raises(HandshakeFailed):
                shake_hands(near, far)
