"""KEMTLS with an implementation in Go that was written from the profile alone (kemtls_peer.go), both roles."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.kem import KEM_CODES, KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.pdk import PdkAuthentication, ServerKey, StoredKey, fingerprint
from streams.security.tls13.schemes import SCHEME_CODES
from tests.integration.test_foreign_tls13_peers import flush, serve, until
from tests.streams.security.tls13.support import (
    DAY,
    HOST,
    MAKE_KEY,
    NOW,
    Authority,
    client_of,
    kem_credential,
    kem_settings,
    pem,
    server_of,
)
from tests.streams.security.tls13.test_delegated import Leaf
from tests.support.go import go_program

CLIENT = "spiffe://test/forwarder"
CHAIN = (SCHEME_CODES["ecdsa_secp256r1_sha256"],)


def speak_with_server(command: list[str], client: Endpoint, environment: dict[str, str] | None = None) -> None:
    """Start the other implementation's server, connect to it, and have it echo a greeting; both ends must end well."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        with socket.create_connection(("localhost", port), 30) as link:
            link.settimeout(30)
            while not client.complete:
                client.handshake()
                flush(client, link)
                if not client.complete:
                    client.feed(link.recv(65536))
            client.write(b"hello")
            flush(client, link)
            assert until(client, link, 5) == b"hello"
        assert process.wait(30) == 0, process.stderr


@pytest.fixture(scope="module")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    source = Path(__file__).with_name("kemtls_peer.go").read_text()
    command = go_program(source, tmp_path_factory.mktemp("go"))
    if command is None:
        pytest.skip("no Go here: install Go 1.26 or later (https://go.dev) to run this second implementation")
    return command[0]


class Files:
    """An authority and both sides' leaves, as our settings and as the files that the Go program reads."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.authority = directory, Authority("p256")
        self.client = kem_credential(self.authority, "mlkem768", CLIENT)
        self.server = kem_credential(self.authority, "mlkem768", HOST)
        (directory / "ca.pem").write_bytes(pem(self.authority.certificate))

    def stored(self) -> StoredKey:
        """The server's key, as a client with a stored key has it."""
        public = self.server.key._key.public_key()
        spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        (self.directory / "stored.der").write_bytes(spki)
        return StoredKey(spki, (HOST,), NOW + DAY)

    def written(self, credential: KemCredential) -> list[str]:
        leaf, seed = self.directory / "leaf.der", self.directory / "seed"
        leaf.write_bytes(credential.chain[0])
        private = credential.key._key
        seed.write_text(
            private.private_bytes(
                serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
            ).hex()
        )
        return [str(self.directory / "ca.pem"), str(leaf), str(seed)]

    def endpoint(self, credential: KemCredential, host: str | None, *, ask: bool, stored: bool = False) -> Endpoint:
        settings = kem_settings(self.authority, credential, chain_schemes=CHAIN, suites=(0x1301,), ask_client=ask)
        way = settings.authentication
        if stored:
            assert isinstance(way, KemAuthentication)
            if not ask:
                way = msgspec.structs.replace(way, credential=None)
            key = self.stored()
            keys = {fingerprint(key.spki): ServerKey(self.server.key, key.until)}
            settings = msgspec.structs.replace(settings, authentication=PdkAuthentication(way, key, keys))
        return server_of(settings) if host is None else client_of(settings, host)


FORMS = {"mutual": True, "server-only": False}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_our_server_speaks_with_its_client(form: str, stored: bool, go_peer: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    endpoint, seen = files.endpoint(files.server, None, ask=FORMS[form], stored=stored), list[bytes]()
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(30)
        port = str(listener.getsockname()[1])
        thread = threading.Thread(target=serve, args=(endpoint, listener, seen))
        thread.start()
        command = [go_peer, "client", port, HOST, *files.written(files.client), form]
        command += [str(tmp_path / "stored.der")] * stored
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        thread.join(30)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["echo"] == "hello"
    assert seen == [b"hello"]
    assert endpoint.facts().identities == ((CLIENT,) if FORMS[form] else ())


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_our_client_speaks_with_its_server(form: str, stored: bool, go_peer: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    client = files.endpoint(files.client, HOST, ask=FORMS[form], stored=stored)
    command = [go_peer, "server", "0", "-", *files.written(files.server), form]
    command += [str(tmp_path / "stored.der")] * stored
    speak_with_server(command, client)
    assert client.facts().identities == (HOST,)


# -- delegated credentials ---------------------------------------------------------------------------------------------


class DelegatedFiles(Files):
    """Leaves that sign, and KEM keys that they have delegated to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.client, self.server = (self._delegated(name) for name in (CLIENT, HOST))

    def _delegated(self, name: str) -> KemCredential:
        leaf, key = Leaf(name, authority=self.authority), MAKE_KEY["mlkem768"]()
        return KemCredential((leaf.der,), KemKey(key), leaf.delegate(KEM_CODES["ML-KEM-768"], key.public_key()))

    def written(self, credential: KemCredential) -> list[str]:
        assert credential.delegated is not None
        (self.directory / "delegated").write_bytes(credential.delegated.raw)
        return super().written(credential)

    def environment(self) -> dict[str, str]:
        return {"DELEGATED": str(self.directory / "delegated")}

    def accepting(self, credential: KemCredential, host: str | None, *, ask: bool) -> Endpoint:
        """A side that accepts a delegated key."""
        kems = (KEM_CODES["ML-KEM-768"],)
        way = KemAuthentication(kems, CHAIN, credential, delegated_kems=kems, delegation_schemes=CHAIN)
        made = kem_settings(self.authority, credential, authentication=way, suites=(0x1301,), ask_client=ask)
        return server_of(made) if host is None else client_of(made, host)


@pytest.mark.parametrize("form", FORMS)
def test_delegated_keys_with_its_client(form: str, go_peer: str, tmp_path: Path) -> None:
    files = DelegatedFiles(tmp_path)
    endpoint, seen = files.accepting(files.server, None, ask=FORMS[form]), list[bytes]()
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve, args=(endpoint, listener, seen))
        thread.start()
        command = [go_peer, "client", str(listener.getsockname()[1]), HOST, *files.written(files.client), form]
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=files.environment()
        )
        thread.join(30)
    assert answer.returncode == 0, answer.stderr
    assert (json.loads(answer.stdout)["echo"], seen) == ("hello", [b"hello"])
    assert endpoint.facts().identities == ((CLIENT,) if FORMS[form] else ())
    peer = endpoint._shake.agreed.peer
    assert (peer is not None and peer.delegated_by == "ecdsa_secp256r1_sha256") == FORMS[form]


@pytest.mark.parametrize("form", FORMS)
def test_delegated_keys_with_its_server(form: str, go_peer: str, tmp_path: Path) -> None:
    files = DelegatedFiles(tmp_path)
    client = files.accepting(files.client, HOST, ask=FORMS[form])
    command = [go_peer, "server", "0", "-", *files.written(files.server), form]
    speak_with_server(command, client, files.environment())
    peer = client._shake.agreed.peer
    assert peer is not None
    assert (client.facts().identities, peer.delegated_by) == ((HOST,), "ecdsa_secp256r1_sha256")
