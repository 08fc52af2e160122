"""The ledger of a whole installation: two streams, a receiver killed by kill -9, and the answer of the command."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.site import Site, command
from logreceiver import config
from logreceiver.commands.ledger import answers
from logreceiver.ledger.writer import Ledger
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks.log.sink import read_records
from logreceiver.sinks.make import make_reader, make_sink
from logreceiver.sinks.settings import AnySink, KafkaSink, LogSink
from streams.telemetry.metrics import CollectorRegistry
from tests.integration.test_kill import feed
from tests.logreceiver.ledger.test_ledger import batch as entry
from tests.logreceiver.ledger.test_ledger import report
from tests.support.batches import batch
from tests.support.cluster import create_topics
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running

RECORDS = 20_000
MODES = '["hybrid", "classical"]'


def answer_of(site: Site, stream: str, *more: str) -> tuple[int, str]:
    """Exit code and output of `logreceiver ledger`."""
    argv = [command("logreceiver"), "ledger", stream, "-c", str(site.directory / "logreceiver.toml"), *more]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def stored(request: pytest.FixtureRequest, site: Site, sink: str, topic: str) -> int:
    """Records in a topic, counted without the ledger."""
    if sink == "log":
        return sum(1 for _ in read_records(site.directory / "log", topic))
    kafka: Kafka = request.getfixturevalue("kafka")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "nobody"})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        return int(high - low)
    finally:
        consumer.close()


@pytest.mark.parametrize("sink", ["log", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_after_kill_9_of_the_receiver_the_ledger_says_that_all_is_stored_once(
    request: pytest.FixtureRequest, tmp_path: Path, topic_name: str, sink: str
) -> None:
    original, twin = f"http-{topic_name}", f"pq-{topic_name}"
    toml = 'type = "log"\ndirectory = "log"'
    if sink == "kafka":
        toml = f'type = "kafka"\nbrokers = ["{request.getfixturevalue("kafka").bootstrap}"]\ncreate_topics = true'
    more = f'[ledger]\ntopic = "ledger-{topic_name}"\n'
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver(toml, listeners={"localhost:0": MODES}, more=more)
        (address,) = site.start_receiver()
        site.write_receiver(toml, listeners={address: MODES}, more=more)
        site.write_forwarder([address])
        batches = "[batch]\nmax_batch_records = 100\n"
        site.write_stream(original, f'security = "classical"\n[source]\ntype = "file"\npaths = ["http.log"]\n{batches}')
        site.write_stream(twin, f'security = "hybrid"\nmirror_of = "{original}"\n')
        log = site.directory / "http.log"
        log.touch()
        site.start_forwarder()
        feeder = threading.Thread(target=feed, args=(log, list(generate_http(RECORDS, seed=3)), 2.0))
        feeder.start()
        time.sleep(1.0)
        site.receiver.kill()
        site.start_receiver()
        feeder.join()
        assert site.wait_until_drained([original, twin], seconds=30), site.streams()
        site.forwarder.stop()
        site.receiver.stop()
        code, text = answer_of(site, original)
        assert code == 0, text
        for name in (original, twin):
            assert f"{name}: sent {RECORDS}, stored {RECORDS}, missing 0, twice 0\n" in text
            assert stored(request, site, sink, name) == RECORDS
        answers = json.loads(answer_of(site, original, "--json")[1])
        assert [(one["stream"], one["twin_of"]) for one in answers] == [(original, ""), (twin, original)]
        assert [shares(one) for one in answers] == [
            [("classical", "X25519", "TLSv1.3", 100.0, 100.0)],
            [("hybrid", "X25519MLKEM768", "TLSv1.3", 100.0, 100.0)],
        ]
        for one in answers:
            assert one["shares"][0]["records"] + one["not_in_ledger"] == RECORDS
            assert (one["waiting"], one["dropped"], one["dead_lettered"], one["resets"]) == (0, 0, 0, 0)
        assert answer_of(site, original, "--identity", "spiffe://elsewhere/*")[0] == 69


@pytest.mark.parametrize("kind", ["log", pytest.param("kafka", marks=pytest.mark.kafka)])
async def test_where_entries_are_absent_the_sink_itself_distinguishes_stored_from_missing(
    request: pytest.FixtureRequest, tmp_path: Path, topic_name: str, kind: str
) -> None:
    books = f"ledger-{topic_name}"
    if kind == "kafka":
        kafka: Kafka = request.getfixturevalue("kafka")
        create_topics(kafka, [books], configs={"message.timestamp.type": "LogAppendTime"})
        settings: AnySink = KafkaSink(brokers=(kafka.bootstrap,), create_topics=True)
    else:
        settings = LogSink(directory=tmp_path)
    sink = make_sink(settings)
    await sink.start()
    await sink.topic(topic_name)
    producer_id = await sink.new_producer_id()
    where: dict[str, Any] = {"topic": topic_name, "producer_id": producer_id}
    async with Ledger(books, sink, ReceiverMetrics(CollectorRegistry())) as ledger:
        for number in range(5):
            stored = await sink.produce(topic_name, 0, batch(producer_id, 10 * number))
            if number in (0, 2):  # the others have no entries
                ledger.batch(entry(10 * number, offset=stored.base_offset, **where))
        ledger.report(report(50, forwarder_id="all stored"))
        ledger.batch(entry(0, offset=0, forwarder_id="all stored", **where))
        ledger.report(report(60))
    found = await answers(make_reader(settings), books, "http", "*")
    await sink.close()
    by_forwarder = {one.forwarder_id: (one.stored, one.missing, one.not_in_ledger) for one in found}
    assert by_forwarder == {"all stored": (50, 0, 40), "f": (50, 10, 30)}


def shares(answer: dict[str, Any]) -> list[tuple[object, ...]]:
    keys = ("mode", "group", "tls_version", "records_percent", "bytes_percent")
    return [tuple(share[key] for key in keys) for share in answer["shares"]]


async def test_a_stream_may_not_write_to_the_ledger(installation: Installation, events: Events) -> None:
    async with running(installation.receiver_config()) as receiver:
        stream = installation.stream(name="logfwd.ledger")
        async with forwarding(installation.forwarder_config(receiver.listeners[0].address, stream)):
            installation.append(*lines(3))
            await eventually(lambda: found(events, "link failed"))
    assert found(events, "link refused")[0]["code"] == "not_allowed"
    assert installation.stored("logfwd.ledger") == []


@pytest.mark.parametrize("ledger", [None, config.Ledger(topic="audit")])
async def test_the_ledger_can_be_turned_off_or_go_elsewhere(
    installation: Installation, ledger: config.Ledger | None
) -> None:
    settings = msgspec.structs.replace(installation.receiver_config(), ledger=ledger)
    async with (
        running(settings) as receiver,
        forwarding(installation.forwarder_config(receiver.listeners[0].address)) as forwarder,
    ):
        installation.append(*lines(30))
        await eventually(lambda: acknowledged(forwarder) == 30)
    assert len(installation.stored()) == 30
    assert installation.stored("logfwd.ledger") == []
    assert bool(installation.stored("audit")) == (ledger is not None)
