"""The Kafka sink on a cluster that wants hybrid TLS with a client certificate, SASL and rights."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed, jars, java
from logreceiver.commands.posture import ask
from logreceiver.config import Admin
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks import Kind, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.kafka.inspection import of_kafka
from logreceiver.sinks.kafka.sink import KafkaSink
from streams.config.sections import SinkTls
from streams.errors import Code, ConfigError, SinkUnavailable
from streams.telemetry import client
from streams.telemetry.metrics import CollectorRegistry
from tests.support.batches import batch, values
from tests.support.cluster import create_topics
from tests.support.delivery import joined, numbered, way_to
from tests.support.installation import Events, Installation, found, running
from tests.support.installation import eventually as becomes
from tests.support.kafka import allow, disallow, secured_kafka
from tests.support.sinks import eventually
from tests.support.tls import Parties

pytestmark = pytest.mark.kafka
USERS = {"scram": "one secret", "plain": "another secret"}


@dataclass
class Secured:
    """A running broker, and what its clients need."""

    kafka: Kafka
    directory: Path
    tls: SinkTls

    def settings(self, user: str, **changes: Any) -> sink_settings.KafkaSink:
        password_file = self.directory / f"{user}.password"
        password_file.write_text(USERS.get(user, "") + "\n")
        mechanism: Literal["PLAIN", "SCRAM-SHA-512"] = "PLAIN" if user == "plain" else "SCRAM-SHA-512"
        sasl = sink_settings.Sasl(mechanism=mechanism, username=user, password_file=password_file)
        wanted: dict[str, Any] = {"security": "hybrid", "tls": self.tls, "sasl": sasl} | changes
        return sink_settings.KafkaSink(brokers=(self.kafka.bootstrap,), **wanted)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("secured")
    parties = Parties(directory / "pki")
    ours = parties.forwarder
    tls = SinkTls(certificate=ours.certificate, key=ours.key, ca=directory / "broker" / "ca.pem")
    with secured_kafka(directory / "broker", client_ca=ours.ca, users=USERS) as kafka:
        yield Secured(kafka, directory, tls)


@asynccontextmanager
async def opened(settings: sink_settings.KafkaSink) -> AsyncIterator[KafkaSink]:
    sink = KafkaSink(settings)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


@pytest.mark.parametrize("user", USERS)
async def test_batches_pass_over_hybrid_tls_with_a_client_certificate_and_sasl(
    secured: Secured, topic_name: str, user: str, events: Events
) -> None:
    await asyncio.to_thread(create_topics, secured.kafka, [topic_name])
    await asyncio.to_thread(allow, secured.kafka, user, topic_name, ["Write", "Read"])
    async with opened(secured.settings(user)) as sink:
        await eventually(lambda: sink.topic(topic_name))
        producer_id = await sink.new_producer_id()
        assert (await sink.produce(topic_name, 0, batch(producer_id, 0))).kind is Kind.STORED
        assert await sink.ask(topic_name, 0, producer_id) == RunState(0, 9)
        large = batch(producer_id, 10, records=[b"%0900d" % number for number in range(1000)])
        assert (await sink.produce(topic_name, 0, large)).kind is Kind.STORED
        assert sink.health() == {}
    assert list(secured.kafka.consume(topic_name))[:10] == values(10)
    logged = found(events, "handshake complete")
    assert logged
    assert {(each["group"], each["version"], each["host"]) for each in logged} == {
        ("X25519MLKEM768", "TLSv1.3", secured.kafka.bootstrap.rpartition(":")[0])
    }


async def test_the_posture_has_the_way_to_kafka_with_its_group_and_who_vouches_for_the_broker(
    secured: Secured, tmp_path: Path, topic_name: str
) -> None:
    await asyncio.to_thread(create_topics, secured.kafka, [topic_name])
    await asyncio.to_thread(allow, secured.kafka, "scram", topic_name, ["Write", "Read"])
    metrics = ReceiverMetrics(CollectorRegistry())
    sink = KafkaSink(secured.settings("scram"), metrics)
    await sink.start()
    sent = batch(await eventually(sink.new_producer_id), 0)
    assert (await sink.produce(topic_name, 0, sent)).kind is Kind.STORED
    (way,) = metrics.sink_connections.shares(time.monotonic())
    assert (way.group, way.version) == ("X25519MLKEM768", "TLSv1.3")
    assert (way.authentication, way.certificate_algorithm) == ("rsa_pss_rsae_sha256", "RSA 2048")
    assert (way.links, way.open_links, way.bytes) == (2, 2, len(sent)), "one for questions, and one for batches"
    sink.renewal(secured.settings("plain"))()
    await becomes(lambda: metrics.sink_connections.shares(time.monotonic())[0].open_links == 1)
    await sink.close()
    (way,) = metrics.sink_connections.shares(time.monotonic())
    assert (way.open_links, way.oldest_open_link_seconds, way.bytes) == (0, None, len(sent))


async def test_a_running_receiver_shows_how_its_way_to_kafka_is_protected(secured: Secured, tmp_path: Path) -> None:
    receiver = msgspec.structs.replace(
        Installation(tmp_path).receiver_config(),
        sink=secured.settings("scram"),
        ledger=None,
        admin=Admin(address="127.0.0.1:0"),
    )
    async with running(receiver) as service:
        await becomes(lambda: service.metrics.sink_connections.shares(0.0))
        found = await asyncio.to_thread(ask, [service.admin_address])
        answer = await asyncio.to_thread(client.ask, service.admin_address, "/api/v1/streams")
    assert answer is not None
    (way,) = found.sink
    assert (way.group, way.version, way.open_links) == ("X25519MLKEM768", "TLSv1.3", 1)
    assert [(each["group"], each["authentication"]) for each in json.loads(answer)["sink"]] == [
        (way.group, way.authentication)
    ]


async def test_a_receiver_without_a_right_says_which_one_it_lacks(secured: Secured, topic_name: str) -> None:
    await asyncio.to_thread(create_topics, secured.kafka, [topic_name])
    async with opened(secured.settings("scram")) as sink:
        with pytest.raises(SinkUnavailable) as caught:
            await sink.topic(topic_name)
        assert caught.value.code is Code.UNAUTHORISED
        await asyncio.to_thread(allow, secured.kafka, "scram", topic_name, ["Write"])
        with pytest.raises(SinkUnavailable, match="lacks READ") as caught:
            await sink.topic(topic_name)
        assert caught.value.code is Code.UNAUTHORISED
        assert "lacks READ" in sink.health()[f"topic {topic_name}"]


async def test_a_stream_waits_for_a_right_that_was_taken_away_and_loses_nothing(
    secured: Secured, tmp_path: Path, topic_name: str, events: Events
) -> None:
    await asyncio.to_thread(create_topics, secured.kafka, [topic_name])
    await asyncio.to_thread(allow, secured.kafka, "scram", topic_name, ["Write", "Read"])
    async with way_to(secured.kafka, tmp_path, secured.settings("scram")) as way:
        async with way.life(topic_name) as life:
            await life.seal(*numbered(0))
            await life.finish()
            await life.seal(*numbered(1, 2))
        await asyncio.to_thread(disallow, secured.kafka, "scram", topic_name, ["Write"])
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: found(events, "batch refused") or found(events, "link refused"))
            assert (len(life.backlog.rows), life.backlog.totals.dead_lettered) == (2, 0)
        await asyncio.to_thread(allow, secured.kafka, "scram", topic_name, ["Write"])
        async with way.life(topic_name) as life:
            await life.finish()
            assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (0, 0)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}
    assert "unauthorised" in {event.get("code") for event in events}


async def test_new_credentials_are_used_without_a_restart(secured: Secured, topic_name: str, events: Events) -> None:
    await asyncio.to_thread(create_topics, secured.kafka, [topic_name])
    await asyncio.to_thread(allow, secured.kafka, "plain", topic_name, ["Write", "Read"])
    async with opened(secured.settings("scram")) as sink:
        with pytest.raises(SinkUnavailable) as caught:
            await sink.topic(topic_name)
        assert caught.value.code is Code.UNAUTHORISED
        sink.renewal(secured.settings("plain"))()
        producer_id = await eventually(sink.new_producer_id)
        await eventually(lambda: sink.topic(topic_name))
        assert (await sink.produce(topic_name, 0, batch(producer_id, 0))).kind is Kind.STORED
        sink.renewal(secured.settings("scram"))()  # the connections for batches are replaced, too
        assert (await sink.produce(topic_name, 0, batch(producer_id, 10))).code is Code.UNAUTHORISED
        sink.renewal(secured.settings("scram"))()
        with pytest.raises(ConfigError, match=r"none\.password"):
            sink.renewal(secured.settings("scram", sasl=unreadable(secured)))
    assert len(found(events, "connections to the brokers renewed")) == 2


def unreadable(secured: Secured) -> sink_settings.Sasl:
    return sink_settings.Sasl(username="scram", password_file=secured.directory / "none.password")


async def test_a_wrong_password_is_named_as_the_problem_and_the_receiver_stays_up(secured: Secured) -> None:
    async with opened(secured.settings("nobody")) as sink:
        assert "uthentication" in sink.health()["kafka"]
        with pytest.raises(SinkUnavailable):
            await sink.new_producer_id()
    (found,) = [finding async for finding in of_kafka(secured.settings("nobody"), ["http"])]
    assert found.is_fault
    assert "uthentication" in found.text


async def test_a_plaintext_client_is_not_mistaken_for_a_healthy_one(secured: Secured) -> None:
    async with opened(secured.settings("scram", security="plaintext", tls=None)) as sink:
        assert sink.health()


async def test_credentials_that_are_not_there_are_a_matter_of_the_configuration(secured: Secured) -> None:
    sasl = sink_settings.Sasl(username="scram", password_file=secured.directory / "nosuch")
    for changes in ({"sasl": sasl}, {"tls": None}):
        sink = KafkaSink(secured.settings("scram", **changes))
        with pytest.raises(ConfigError, match=r"sink\.(sasl\.password_file|tls)"):
            await sink.start()
        await sink.close()
