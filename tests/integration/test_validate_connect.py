"""`logfwd validate --connect` says what each stream would be told at each address, and disturbs nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from logfwd.commands.probe import probe
from logreceiver.config import Allow
from logreceiver.service import Service
from logreceiver.sinks.settings import KafkaSink
from streams import names
from streams.errors import LinkError
from streams.security.modes import MODES
from streams.wire import messages as m
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running

pytestmark = pytest.mark.usefixtures("events")  # whose lines would be printed among those of the command


def address_of(service: Service) -> str:
    return f"127.0.0.1:{service.listeners[0].address.rpartition(':')[2]}"


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


async def test_each_stream_is_told_what_each_receiver_says(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = installation.receiver_config(streams=("http",), address="127.0.0.1:0", modes=("hybrid", "classical"))
    async with running(receiver) as service:
        good, dead = address_of(service), nowhere()
        streams = [
            installation.stream(name="http", receivers=(good, dead)),
            installation.stream(name="auth", security="classical"),
            installation.stream(name="other", security="hybrid-p256"),
        ]
        with pytest.raises(LinkError, match="3 of 4 pairs"):
            await probe(installation.forwarder_config(good, *streams))
    said = capsys.readouterr()
    assert said.out.startswith(f"http: {good} TLSv1.3 X25519MLKEM768 ")
    assert said.out.endswith("topic http, which will be created\n")
    assert f"http: no link: {dead}: cannot connect: Connection refused\n" in said.err
    assert f"auth: no link: {good}: the peer refused: not_allowed: spiffe://test/forwarder may not write" in said.err
    assert f"other: no link: {good}: " in said.err


async def test_a_topic_that_is_not_the_stream_s_is_told(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(installation.receiver_config(address="127.0.0.1:0")) as service:
        with pytest.raises(LinkError):
            await probe(installation.forwarder_config(address_of(service), installation.stream(topic="web")))
    assert "the receiver writes to topic 'http', not to 'web'" in capsys.readouterr().err


async def test_a_sink_that_is_away_is_told(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    sink = KafkaSink(brokers=(nowhere(),))
    config = msgspec.structs.replace(installation.receiver_config(address="127.0.0.1:0"), sink=sink, ledger=None)
    async with running(config) as service:
        with pytest.raises(LinkError):
            await probe(installation.forwarder_config(address_of(service)))
    assert "the peer refused: unavailable: no connection to" in capsys.readouterr().err


async def test_every_address_of_a_name_is_asked_and_one_where_nothing_listens_is_no_fault(
    installation: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(_: str, port: int, flags: int = 0) -> list[names.AddressInfo]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    async with running(installation.receiver_config(address="127.0.0.1:0")) as service:
        monkeypatch.setattr(names, "_resolve", both)
        receiver = address_of(service).replace("127.0.0.1", "localhost")
        await probe(installation.forwarder_config(receiver))
    said = capsys.readouterr()
    port = receiver.rpartition(":")[2]
    assert said.err == f"http: not used: {receiver} (127.0.0.2:{port}): cannot connect: Connection refused\n"
    assert said.out.startswith(f"http: {receiver} (127.0.0.1:{port}) TLSv1.3 X25519MLKEM768 ")


async def test_a_running_forwarder_is_not_disturbed_and_nothing_is_made(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config(address="127.0.0.1:0")) as service:
        installation.append(*lines(3))
        unused = installation.stream(name="unused")
        config = installation.forwarder_config(address_of(service))
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 3)
            for _ in range(3):
                await probe(installation.forwarder_config(address_of(service), installation.stream(), unused))
            (row,) = forwarder.describe()
            installation.append(*lines(3, 3))
            await eventually(lambda: acknowledged(forwarder) == 6)
            assert forwarder.describe()[0]["link"]["since"] == row["link"]["since"]
    assert found(events, "clone suspected") == found(events, "link failed") == []
    assert not Path(installation.directory / "log" / "unused-0").exists()


async def test_a_mode_that_no_rule_allows_is_named(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = installation.receiver_config(address="127.0.0.1:0", modes=("hybrid", "classical"))
    rule = Allow(identity="spiffe://test/*", streams=("*",), modes=("hybrid",))
    async with running(msgspec.structs.replace(receiver, allow=(rule,))) as service:
        with pytest.raises(LinkError):
            stream = installation.stream(security=MODES["classical"].name)
            await probe(installation.forwarder_config(address_of(service), stream))
    assert "may write stream 'http' in mode hybrid, not 'classical'" in capsys.readouterr().err


def test_the_id_of_a_forwarder_is_never_that_of_a_probe() -> None:
    assert m.Hello(m.VERSION, f"{m.PROBE_ID}1", "b", "http", "hybrid").is_probe
    assert not m.Hello(m.VERSION, "0123456789abcdef", "b", "http", "hybrid").is_probe
