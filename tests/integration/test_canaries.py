"""Secrets stay where they are: none of those that configurations name is in anything that the programs say or show."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import die_with_parent
from streams.security.pki import create_authority
from tests.support.patience import PATIENCE_SECONDS

BIN = Path(sys.executable).parent
CANARIES = {name: f"canary-{name}-9d1c5b7e" for name in ("sasl", "token", "file", "key")}
BROKEN = {
    "max_links": 'limits = { max_links = "${file:secret}" }\n',
    "allow": "[[allow]]\nidentity = 5\nstreams = ['${file:secret}']\nmodes = ['${file:secret}']\n",
    "identity": "[[allow]]\nidentity = '${file:secret}'\nstreams = ['${file:secret}']\n",
    "topic": "[[allow]]\nidentity = 'x'\nstreams = ['x']\ntopic = '${file:secret}'\n",
    "key": "[tls.mldsa]\ncertificate = 'pki/receiver.pem'\nkey = 'garbage'\nca = 'pki/ca.pem'\n",
}


class Place:
    """Both programs, with a secret in every place that takes one."""

    def __init__(self, home: Path) -> None:
        self.home, self.said = home, b""
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(5)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            self.link, self.receiver, self.forwarder, self.http, self.broker = (
                each.getsockname()[1] for each in sockets
            )
        authority = create_authority(home / "pki")
        for name, hosts in (("receiver", ["localhost"]), ("host", [])):
            authority.issue(identities=[f"spiffe://t/{name}"], hosts=hosts, out=home / "pki" / name)
        for name in ("sasl", "token"):
            self.secret(name, CANARIES[name])
        self.secret("secret", CANARIES["file"])
        self.secret("garbage", f"-----BEGIN PRIVATE KEY-----\n{CANARIES['key']}\n-----END PRIVATE KEY-----\n")
        self.grant = (home / "pki" / "grant.key").read_text().strip().partition(":")[2]
        self.write()

    def secret(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)
        (self.home / name).chmod(0o600)

    def write(self, broken: str = "") -> None:
        receiver = f"""
grant_key_file = "pki/grant.key"
control_socket = "control.sock"
stop_grace = "0s"
{broken if broken.startswith("limits") else ""}
[tls]
certificate = "pki/receiver.pem"
key = "pki/receiver.key"
ca = "pki/ca.pem"
[admin]
address = "127.0.0.1:{self.receiver}"
[[listener]]
address = "127.0.0.1:{self.link}"
[[allow]]
identity = "spiffe://t/*"
streams = ["*"]
[sink]
type = "kafka"
brokers = ["127.0.0.1:{self.broker}"]
[sink.sasl]
username = "${{file:secret}}"
password_file = "sasl"
{"" if broken.startswith("limits") else broken}
"""
        forwarder = f"""
state_dir = "state"
receivers = ["localhost:{self.link}"]
stop_grace = "0s"
[tls]
certificate = "pki/host.pem"
key = "pki/host.key"
ca = "pki/ca.pem"
[admin]
address = "127.0.0.1:{self.forwarder}"
"""
        stream = f"""
name = "web"
[source]
type = "http"
address = "127.0.0.1:{self.http}"
token_file = "token"
tls = {{ certificate = "pki/receiver.pem", key = "pki/receiver.key" }}
"""
        (self.home / "streams.d").mkdir(exist_ok=True)
        (self.home / "logreceiver.toml").write_text(receiver)
        (self.home / "logfwd.toml").write_text(forwarder)
        (self.home / "streams.d" / "web.toml").write_text(stream)

    def run(self, program: str, *arguments: str) -> None:
        """Keep what a command says, however it ends."""
        command = [str(BIN / program), *arguments, "-c", str(self.home / f"{program}.toml")]
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
        self.said += done.stdout + done.stderr

    def get(self, url: str, data: bytes | None = None, token: str = "") -> None:
        request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"} if token else {})
        context = ssl._create_unverified_context() if url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as reply:
                self.said += reply.read() + str(reply.headers).encode()
        except urllib.error.HTTPError as error:
            self.said += error.read() + str(error.headers).encode()
        except OSError as error:
            self.said += str(error).encode()

    @contextlib.contextmanager
    def running(self, program: str, admin: int) -> Iterator[int]:
        log = self.home / f"{program}.log"
        command = [str(BIN / program), "run", "--log-level", "debug", "-c", str(self.home / f"{program}.toml")]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stderr=out, preexec_fn=die_with_parent)  # noqa: PLW1509
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/healthz"):
                    break
                time.sleep(0.1)
            assert process.poll() is None, log.read_text()
            yield process.pid
            self.said += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
            self.said += log.read_bytes()


def forms(secret: str) -> dict[str, bytes]:
    raw = secret.encode()
    return {
        "as it is": raw,
        "base64": base64.b64encode(raw).rstrip(b"=")[:-2],  # the last digits depend on what follows
        "hex": raw.hex().encode(),
        "quoted": urllib.parse.quote(secret).encode(),
    }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_no_secret_is_in_anything_that_the_programs_say(place: Place) -> None:
    with place.running("logreceiver", place.receiver), place.running("logfwd", place.forwarder):
        for port in (place.receiver, place.forwarder):
            for page in ("metrics", "healthz", "readyz", "readyz?strict", "api/v1/streams", "api/v1/posture", ""):
                place.get(f"http://127.0.0.1:{port}/{page}")
        for token in (CANARIES["token"], f"{CANARIES['token']}x"):
            place.get(f"https://127.0.0.1:{place.http}/ingest/web", b'{"a":1}\n', token)
        for program in ("logreceiver", "logfwd"):
            for arguments in (["validate"], ["reload", "--check"], ["reload"]):
                place.run(program, *arguments)
        place.run("logreceiver", "posture", "--json")
        place.run("logfwd", "spool", "ls", "--json")
        for broken in BROKEN.values():
            place.write(broken)
            place.run("logreceiver", "reload")
            place.run("logreceiver", "validate")
        place.write()
        for name in ("pki/grant.key", "pki/receiver.key", "pki/host.key", "sasl"):
            path = place.home / name
            whole = path.read_bytes()
            path.write_bytes(b"\xff" + whole[: len(whole) // 2])
            for program in ("logreceiver", "logfwd"):
                place.run(program, "validate")
                place.run(program, "reload")
            path.write_bytes(whole)
    pem = [line for name in ("receiver", "host") for line in (place.home / f"pki/{name}.key").read_text().splitlines()]
    secrets = [*CANARIES.values(), place.grant, *(line for line in pem if "-----" not in line)]
    assert b"config rejected" in place.said
    assert b'"status":200' in place.said.replace(b" ", b"") or b"records" in place.said
    found = [(secret, form) for secret in secrets for form, text in forms(secret).items() if text in place.said]
    assert found == [], [place.said[max(at - 200, 0) : at + 60] for at in [place.said.find(found[0][0].encode())]]
