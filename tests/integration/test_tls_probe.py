"""`logfwd tls probe` and failed links name what was asked for and what was there."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from click.testing import CliRunner, Result

from logfwd.cli import main
from logfwd.commands.probe import probe
from streams.errors import LinkError
from tests.support.installation import Events, Installation, eventually, forwarding, found, running


async def run(*arguments: str) -> Result:
    """On a thread, as the command has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, ["tls", "probe", *arguments])


@pytest.fixture(autouse=True)
def quiet(events: Events) -> Events:
    return events


async def test_modes_that_are_served_are_told_from_those_that_are_not(installation: Installation) -> None:
    async with running(installation.receiver_config(modes=("classical",), address="127.0.0.1:0")) as service:
        address = service.listeners[0].address
        result = await run(address)
        answer = json.loads((await run(address, "--json")).output)
    assert result.exit_code == 0, result.output
    assert "\nclassical: TLSv1.3 X25519 TLS_AES_128_GCM_SHA256 ecdsa_secp256r1_sha256\n" in result.output
    assert "\nhybrid: no: the peer refused with the alert 'handshake failure'\n" in result.output
    assert "for receiver, localhost, 127.0.0.1; EC secp256r1, signed with ECDSA with SHA-256 by CN=" in result.output
    rows = {row["mode"]: row for row in answer["modes"]}
    assert [name for name, row in rows.items() if row["served"]] == ["classical", "hybrid-preferred"]
    assert rows["classical"]["protocol"] == "logfwd/1"
    assert rows["classical"]["chain"][0]["hosts"] == ["receiver", "localhost", "127.0.0.1"]


async def test_with_a_configuration_a_chain_that_links_would_refuse_is_told(installation: Installation) -> None:
    parties = installation.parties
    (installation.directory / "streams.d").mkdir()
    path = installation.directory / "logfwd.toml"
    tls = parties.forwarder
    path.write_text(
        'state_dir = "state"\nreceivers = ["localhost:1"]\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
    )
    (installation.directory / "streams.d" / "s.toml").write_text('name = "s"\n[source]\ntype = "stdin"\n')
    async with running(installation.receiver_config(address="127.0.0.1:0")) as service:
        address = service.listeners[0].address
        fits = await run(address, "-c", str(path))
        other = await run(address, "-c", str(path), "--name", "logs.example.net")
    assert "would refuse" not in fits.output
    assert "a link would refuse this chain: hostname mismatch" in other.output


async def test_nothing_there_and_no_tls_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nothing = f"127.0.0.1:{free.getsockname()[1]}"
    result = await run(nothing)
    assert (result.exit_code, "cannot connect: Connection refused" in result.output) == (69, True)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await run(f"127.0.0.1:{port}")
    assert (result.exit_code, "hybrid: no: TLS: " in result.output) == (1, True)


async def test_a_wrong_mode_is_named_with_what_it_offers(installation: Installation, events: Events) -> None:
    async with running(installation.receiver_config(modes=("classical",))) as service:
        config = installation.forwarder_config(service.listeners[0].address)
        async with forwarding(config):
            await eventually(lambda: found(events, "link failed"))
    detail = found(events, "link failed")[0]["detail"]
    assert "it took nothing of what mode hybrid offers (TLSv1.3 with X25519MLKEM768)" in detail
    assert "`logfwd tls probe" in detail


async def test_a_wrong_host_is_named_with_those_that_the_certificate_is_for(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(installation.receiver_config(address="127.0.0.1:0")) as service:
        address = service.listeners[0].address
        with pytest.raises(LinkError):
            await probe(installation.forwarder_config(address, server_name="logs.example.net"))
    expected = "hostname mismatch: asked for logs.example.net, it is for receiver, localhost, 127.0.0.1"
    assert expected in capsys.readouterr().err
