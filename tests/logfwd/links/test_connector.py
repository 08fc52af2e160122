"""How a forwarder makes its links: which receiver, and that a link weaker than its mode is not used."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.links import connector
from logfwd.links.connector import Connector
from logfwd.metrics import ForwarderMetrics
from streams.config.sections import Delegated, MlKem, Tls
from streams.errors import ConfigError, HandshakeFailed, LinkError, PolicyViolation
from streams.security import stacks
from streams.security.endpoint import Facts
from streams.security.listener import Listener, listen
from streams.security.modes import MODES
from streams.security.transport import Link
from streams.telemetry.metrics import CollectorRegistry
from tests.support.patience import PATIENCE_SECONDS
from tests.support.plaintext import FACTS, FORWARDER, PlaintextParty
from tests.support.tls import Parties, delegating

EXPIRES = PlaintextParty.expires.timestamp()
STREAM = Stream(name="http")
PREFERRED = Stream(name="http", security="hybrid-preferred")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def connector_to(registry: CollectorRegistry, *receivers: str) -> Connector:
    tls = Tls(certificate=Path("leaf.pem"), key=Path("leaf.key"), ca=Path("ca.pem"))
    config = ForwarderConfig(state_dir=Path("state"), tls=tls, receivers=receivers)
    return Connector(config, ForwarderMetrics(registry))


@contextlib.asynccontextmanager
async def receiver(ended: list[Link] | None = None) -> AsyncIterator[Listener]:
    """A receiver without TLS that reads; the links that have ended are put into the list."""

    async def serve(link: Link) -> None:
        with contextlib.suppress(LinkError):
            await link.receive()
        if ended is not None:
            ended.append(link)

    listener = await listen("127.0.0.1:0", PlaintextParty(FORWARDER), serve, on_failure=lambda *_: None)
    try:
        yield listener
    finally:
        await listener.close()


def learns(monkeypatch: pytest.MonkeyPatch, facts: Facts) -> None:
    """Whatever the mode: this is what the handshake gives."""
    monkeypatch.setattr(stacks, "client", lambda *_: PlaintextParty(facts))


async def test_a_link_that_gives_what_the_mode_demands_is_used(
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    learns(monkeypatch, FACTS)
    async with receiver() as server:
        with capture_logs() as events:
            link = await connector_to(registry, server.address).of(STREAM)()
        link.abort()
    (event,) = events
    assert (event["event"], event["stream"], event["mode"]) == ("handshake complete", "http", "hybrid")
    assert event["authentication"] == "ecdsa_secp256r1_sha256"
    assert event["connect_milliseconds"] > 0
    for stream, whose in (("http", "peer"), ("", "own")):
        expiry = registry.get_sample_value(
            "tls_certificate_expiry_timestamp_seconds", {"stream": stream, "owner": whose}
        )
        assert expiry == EXPIRES


@pytest.mark.parametrize(
    "weaker",
    [
        {"group": "X25519"},
        {"version": "TLSv1.2"},
        {"authentication": "rsa_pss_rsae_sha256", "certificate_algorithm": "RSA 2048"},
    ],
)
async def test_a_link_weaker_than_the_mode_is_cut_before_any_data_and_counted(
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry, weaker: dict[str, str]
) -> None:
    learns(monkeypatch, replace(FACTS, **weaker))
    ended: list[Link] = []
    async with receiver(ended) as server:
        with pytest.raises(PolicyViolation, match="mode hybrid demands"):
            await connector_to(registry, server.address).of(STREAM)()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ended:
                await asyncio.sleep(0.001)
    labels = {"stream": "http", "reason": "weaker_than_mode"}
    assert registry.get_sample_value("tls_policy_violations_total", labels) == 1


async def test_the_second_choice_of_a_mode_is_used_and_raises_an_alarm(
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    learns(monkeypatch, replace(FACTS, group="X25519"))
    async with receiver() as server:
        with capture_logs() as events:
            (await connector_to(registry, server.address).of(PREFERRED)()).abort()
    alarm = events[-1]
    assert (alarm["event"], alarm["log_level"], alarm["group"]) == ("downgrade accepted", "warning", "X25519")
    assert registry.get_sample_value("tls_downgrades_total", {"stream": "http", "reason": "X25519"}) == 1


async def test_receivers_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry) -> None:
    learns(monkeypatch, FACTS)
    tried: list[str] = []

    async def refuse(address: str, *_: object, **__: object) -> Link:
        tried.append(address)
        raise HandshakeFailed("disconnected", "nobody there")

    monkeypatch.setattr(connector, "connect", refuse)
    connect = connector_to(registry, "a:1", "b:1", "c:1").of(STREAM)
    for _ in range(6):
        with pytest.raises(HandshakeFailed):
            await connect()
    assert set(tried[:3]) == {"a:1", "b:1", "c:1"}
    assert tried[:3] == tried[3:]


async def test_a_stream_s_own_receivers_and_server_name_come_before_the_config_s(
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    learns(monkeypatch, FACTS)
    asked: list[object] = []

    async def note(address: str, *_: object, server_name: str | None, **__: object) -> Link:
        asked.append((address, server_name))
        raise HandshakeFailed("disconnected", "nobody there")

    monkeypatch.setattr(connector, "connect", note)
    own = Stream(name="http", receivers=("own:1",), server_name="own.example")
    with pytest.raises(HandshakeFailed):
        await connector_to(registry, "a:1").of(own)()
    assert asked == [("own:1", "own.example")]


async def test_files_that_cannot_be_used_fail_the_link_and_not_the_stream(registry: CollectorRegistry) -> None:
    with pytest.raises(LinkError, match=r"leaf\.pem: tls\.certificate: cannot be used"):
        await connector_to(registry, "a:1").of(STREAM)()


async def test_a_party_is_kept_until_one_of_its_files_holds_something_else(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    parties = Parties(tmp_path)
    mode, files = MODES["kemtls"], parties.forwarder.mlkem
    assert files is not None
    own = Connector(
        ForwarderConfig(
            state_dir=Path("state"),
            tls=Tls(mlkem=MlKem(certificate=files.certificate, key=files.key, ca=files.ca)),
            receivers=("a:1",),
        ),
        ForwarderMetrics(registry),
    )
    first = own._party(mode)
    files.ca.touch()
    assert own._party(mode) is first, "the same bytes, written later"
    files.ca.write_bytes(files.ca.read_bytes() * 2)
    assert own._party(mode) is not first
    files.key.unlink()
    with pytest.raises(ConfigError, match=r"tls\.mlkem\.key"):
        own._party(mode)


async def test_a_party_is_not_kept_longer_than_its_delegated_credential(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = delegating(Parties(tmp_path), "forwarder", hours=1)
    own = Connector(
        ForwarderConfig(
            state_dir=Path("state"),
            tls=Tls(delegated=Delegated(certificate=made.certificate, key=made.key, ca=made.ca)),
            receivers=("a:1",),
        ),
        ForwarderMetrics(registry),
    )
    first = own._party(MODES["kemtls"])
    assert own._party(MODES["kemtls"]) is first
    monkeypatch.setattr(type(first), "delegated_until", datetime.datetime.now(datetime.UTC))
    assert own._party(MODES["kemtls"]) is not first
