"""File to embedded log over real TLS: what arrives, and who is refused, in one clear line on each side."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import random
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from logfwd.links import conversation
from logfwd.links.delivery import Delivery
from logreceiver.links import hearing
from logreceiver.sinks import Outcome
from logreceiver.sinks.log.sink import LogSink
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.endpoint import Credentials
from streams.security.modes import MODES
from streams.security.transport import Link
from streams.wire.connection import ForwarderConnection
from streams.wire.messages import VERSION, Hello, Ping
from tests.support.installation import (
    EVERYTHING,
    Events,
    Installation,
    acknowledged,
    eventually,
    forwarding,
    found,
    lines,
    running,
)
from tests.support.tls import Parties


async def test_records_and_their_twin_arrive_once_in_order(installation: Installation) -> None:
    twin = installation.stream(name="pq-stream", mirror_of="http", security="hybrid", source=None)
    original = installation.stream(security="classical")
    async with running(installation.receiver_config(modes=EVERYTHING)) as service:
        config = installation.forwarder_config(service.listeners[0].address, original, twin)
        async with forwarding(config) as forwarder:
            installation.append(*lines(500))
            await eventually(lambda: acknowledged(forwarder) == acknowledged(forwarder, "pq-stream") == 500)
            groups = {row["stream"]: row["link"]["group"] for row in forwarder.describe()}
    assert groups == {"http": "X25519", "pq-stream": "X25519MLKEM768"}
    assert installation.stored("http") == installation.stored("pq-stream") == lines(500)


async def test_original_and_twin_take_turns_at_being_sent_first(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    prepare = Delivery.stamped_payload

    async def noted(self: Delivery, *arguments: Any) -> bytearray:
        sent.append(self.stream.name)
        return await prepare(self, *arguments)

    monkeypatch.setattr(Delivery, "stamped_payload", noted)
    twin = installation.stream(name="twin", mirror_of="http", source=None)
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(), twin)
        async with forwarding(config) as forwarder:
            for done in range(9):
                installation.append(*lines(1, done))
                await eventually(
                    lambda done=done: acknowledged(forwarder) == acknowledged(forwarder, "twin") == done + 1  # type: ignore[misc]
                )
    first = sent[2::2]  # who was let in first, sends the first batch first
    assert first in (["http", "twin"] * 4, ["twin", "http"] * 4)


async def test_a_forwarder_goes_on_where_it_stopped(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        for part in range(3):
            installation.append(*lines(100, part * 100))
            async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
                await eventually(lambda part=part: acknowledged(forwarder) == (part + 1) * 100)  # type: ignore[misc]
    assert installation.stored() == lines(300)


async def test_batches_wait_in_the_spool_while_there_is_no_receiver(installation: Installation, events: Events) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
    installation.append(*lines(200))
    async with forwarding(installation.forwarder_config(address)) as forwarder:
        await eventually(lambda: len(found(events, "link failed")) >= 2)
        assert acknowledged(forwarder) == 0
        assert forwarder.describe()[0]["spool"]["batches"] >= 1
    receiver = running(installation.receiver_config(address=address))
    async with receiver, forwarding(installation.forwarder_config(address)) as forwarder:
        await eventually(lambda: acknowledged(forwarder) == 200)
    assert installation.stored() == lines(200)


async def test_a_receiver_that_restarts_makes_neither_loss_nor_repeats(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
    async with forwarding(installation.forwarder_config(address)) as forwarder:
        for part in range(4):
            async with running(installation.receiver_config(address=address)):
                installation.append(*lines(50, part * 50))
                await eventually(lambda part=part: acknowledged(forwarder) >= part * 50 + 1)  # type: ignore[misc]
        async with running(installation.receiver_config(address=address)):
            await eventually(lambda: acknowledged(forwarder) == 200)
    assert installation.stored() == lines(200)


# -- refused, nothing sent, one line on each side --------------------------------------------------------------------


async def refusal(
    installation: Installation,
    events: Events,
    *,
    handshake: bool = True,
    modes: tuple[str, ...] = ("hybrid",),
    stream: dict[str, object] | None = None,
    streams: tuple[str, ...] = ("*",),
    receiver: Credentials | None = None,
    forwarder: Credentials | None = None,
    server_name: str | None = None,
) -> tuple[structlog.typing.EventDict, structlog.typing.EventDict]:
    """Run until both sides have said why; returns the receiver's line and the forwarder's."""
    config = installation.receiver_config(modes=modes, streams=streams, credentials=receiver)
    installation.append(*lines(10))

    def at_receiver() -> Events:
        event = "handshake failed" if handshake else "link refused"
        return [entry for entry in found(events, event) if "peer" in entry]

    async with running(config) as service:
        sending = installation.forwarder_config(
            service.listeners[0].address,
            installation.stream(**(stream or {})),
            credentials=forwarder,
            server_name=server_name,
        )
        async with forwarding(sending) as running_forwarder:
            await eventually(lambda: at_receiver() and found(events, "link failed"))
            assert running_forwarder.describe()[0]["link"] is None
            assert acknowledged(running_forwarder) == 0
    assert installation.stored() == []
    return at_receiver()[0], found(events, "link failed")[0]


async def test_a_forwarder_of_another_authority_is_refused(
    installation: Installation, events: Events, tmp_path: Path
) -> None:
    stranger = Parties(tmp_path / "stranger").forwarder
    forged = Credentials(stranger.certificate, stranger.key, installation.parties.forwarder.ca)
    receiver, forwarder = await refusal(installation, events, forwarder=forged)
    assert receiver["reason"] == "unknown_ca"
    assert "unknown ca" in forwarder["detail"]


async def test_a_receiver_of_another_authority_is_refused(
    installation: Installation, events: Events, tmp_path: Path
) -> None:
    stranger = Parties(tmp_path / "stranger").receiver
    receiver, forwarder = await refusal(installation, events, receiver=stranger)
    assert forwarder["reason"] == "handshake_unknown_ca"
    assert receiver["alert"] == "unknown ca"


async def test_an_expired_leaf_is_refused(installation: Installation, events: Events) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    expired = installation.parties.leaf("expired", identities=["spiffe://test/old"], days=1, not_before=past)
    receiver, forwarder = await refusal(installation, events, forwarder=expired)
    assert receiver["reason"] == "certificate_expired"
    assert "certificate expired" in forwarder["detail"]


async def test_a_receiver_under_a_wrong_name_is_refused(installation: Installation, events: Events) -> None:
    receiver, forwarder = await refusal(installation, events, server_name="other.example")
    assert forwarder["reason"] == "handshake_host_mismatch"
    assert receiver["alert"] == "bad certificate"


async def test_a_tls_1_2_stream_is_refused_by_a_hybrid_listener(installation: Installation, events: Events) -> None:
    receiver, forwarder = await refusal(installation, events, stream={"security": "classical-tls12"})
    assert receiver["reason"] == "protocol_version"
    assert "protocol version" in forwarder["detail"]


async def test_a_classical_stream_is_refused_by_a_hybrid_listener(installation: Installation, events: Events) -> None:
    receiver, forwarder = await refusal(installation, events, stream={"security": "classical"})
    assert receiver["reason"] == "no_shared_group"
    assert "handshake failure" in forwarder["detail"]


async def test_an_identity_that_may_not_write_the_stream_is_refused(installation: Installation, events: Events) -> None:
    receiver, forwarder = await refusal(installation, events, handshake=False, streams=("dns",))
    assert (receiver["code"], forwarder["reason"]) == ("not_allowed", "not_allowed")
    assert "may not write stream 'http'" in receiver["reason"]
    assert "may not write stream 'http'" in forwarder["detail"]


async def test_a_topic_other_than_the_one_insisted_on_is_refused(installation: Installation, events: Events) -> None:
    installation.append(*lines(3))
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(topic="elsewhere"))
        async with forwarding(config) as forwarder:
            await eventually(lambda: found(events, "link failed"))
            assert acknowledged(forwarder) == 0
    assert "'elsewhere'" in found(events, "link failed")[0]["detail"]


# -- batches that are refused ----------------------------------------------------------------------------------------


async def test_one_record_that_is_too_large_is_set_aside_and_the_stream_goes_on(
    installation: Installation, events: Events
) -> None:
    receiver = installation.receiver_config()
    small = msgspec.structs.replace(receiver.sink, max_message_bytes=4_000)
    giant = json.dumps({"n": "giant", "noise": random.Random(1).randbytes(8_000).hex()})
    async with running(msgspec.structs.replace(receiver, sink=small)) as service:
        installation.append(*lines(40), giant, *lines(40, 40))
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 80)
            installation.append(*lines(20, 80))
            await eventually(lambda: acknowledged(forwarder) == 100)
            (row,) = forwarder.describe()
    assert installation.stored() == lines(100)
    assert (row["records"]["dead_lettered"], row["resets"]) == (1, 1)
    assert row["records"]["accepted"] == 101
    assert [event["code"] for event in found(events, "batch dead-lettered")] == ["too_large"]


async def test_a_forwarder_that_does_not_read_is_not_read_on(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "IDLE_SECONDS", 2.0)  # a busy machine may take one for silent that is not
    monkeypatch.setattr(hearing, "MOST_MESSAGES", 1e9)
    monkeypatch.setattr(hearing, "MESSAGES_IN_ADVANCE", 1e9)
    wire = ForwarderConnection()
    async with running(installation.receiver_config()) as service:
        party = stacks.client(MODES["hybrid"], installation.parties.forwarder)
        link = await connect(service.listeners[0].address, party)
        link.write(*wire.send(Hello(VERSION, "forwarder", "boot", "http", "hybrid")))
        wire.receive_data(await link.receive())
        _shrink_kernel_buffer(link)
        pings = b"".join(map(bytes, wire.send(Ping(1 << 62)))) * 4000
        try:
            async with asyncio.timeout(60):
                while not found(events, "link refused"):
                    link.write(pings)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await link.drain()
        finally:
            link.abort()
    assert found(events, "link refused")[0]["reason"] == "the forwarder does not read what it is sent"


def _shrink_kernel_buffer(link: Link) -> None:
    """What the kernel keeps for a reader, so that a peer soon notices that nobody reads."""
    assert link._transport is not None
    link._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


async def test_lines_that_are_no_json_are_wrapped_and_counted(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        installation.append('{"n":0}', "plain text", "", '{"n":1}')
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 3)
            assert forwarder.describe()[0]["records"]["invalid"] == 1
    assert [json.loads(value) for value in installation.stored()] == [
        {"n": 0},
        {"message": "plain text", "invalid": True},
        {"n": 1},
    ]


async def test_a_batch_after_a_long_pause_may_take_its_time(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(sink: LogSink, *args: Any) -> Outcome:
        await asyncio.sleep(3 * conversation.LOOK_SECONDS)
        return await produce(sink, *args)

    monkeypatch.setattr(conversation, "LOOK_SECONDS", 0.05)
    produce = LogSink.produce
    monkeypatch.setattr(LogSink, "produce", slowly)
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        installation.append(*lines(10))
        await eventually(lambda: acknowledged(forwarder) == 10)
        await asyncio.sleep(6 * conversation.LOOK_SECONDS)  # nothing is said on the link meanwhile
        installation.append(*lines(10, 10))
        await eventually(lambda: acknowledged(forwarder) == 20)
    assert not found(events, "link failed")


async def test_a_farewell_that_comes_while_a_batch_is_fetched_is_heeded_at_once(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, farewells = Delivery.stamped_payload, ["the receiver is stopping"]

    async def fetch_slowly(delivery: Delivery, *args: Any) -> bytearray:
        payload = await fetch(delivery, *args)
        if acknowledged(forwarder) and farewells:
            sender = forwarder._keepers["http"].pipeline.senders[0]  # type: ignore[union-attr]
            next(iter(service._live)).go_away(farewells.pop(), 1)
            await eventually(lambda: sender._conversation is None or sender._conversation.leaving)
        return payload

    monkeypatch.setattr(Delivery, "stamped_payload", fetch_slowly)
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        for count in (10, 20):
            installation.append(*lines(10, count - 10))
            await eventually(lambda expected=count: acknowledged(forwarder) == expected, seconds=15)  # type: ignore[misc]
    assert len(found(events, "link closed")) == 2
