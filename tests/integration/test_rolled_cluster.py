"""A cluster is rolled under load: each of three brokers is stopped and started again, one after the other, while
records flow to it over TLS with a hybrid group alone, with client certificates and SASL.

Ten minutes of it in `make chaos`; `make test` has the death of a leader in test_leader_change.py, and such a broker in
test_kafka_security.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.feeder import Feeder
from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed, jars, java
from bench.lab.oracle import judge, read_topic
from bench.lab.processes import wait_until
from bench.lab.site import Site
from tests.support.cluster import create_topics, in_sync
from tests.support.kafka import allow, secured_kafka
from tests.support.patience import PATIENCE_SECONDS

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
ROLL_SECONDS = 600.0
BROKERS = (1, 2, 3)
CALM_SECONDS = 3.0
SYNC_SECONDS = 120.0
STREAM, TWIN, LEDGER = "http", "http-classical", "logfwd.ledger"
USER, PASSWORD = "receiver", "a secret"
GROUP = "X25519MLKEM768"
SETTINGS = {"default.replication.factor": "3", "min.insync.replicas": "2", "controlled.shutdown.enable": "true"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Kafka]:
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    with secured_kafka(
        tmp_path / "brokers", users={USER: PASSWORD}, brokers=len(BROKERS), groups=GROUP, more=SETTINGS
    ) as running:
        yield running


def sink(kafka: Kafka, directory: Path) -> str:
    """The receiver's [sink]."""
    brokers, files = kafka.bootstrap.replace(",", '", "'), directory / "brokers"
    (directory / "password").write_text(PASSWORD)
    return f"""type = "kafka"
brokers = ["{brokers}"]
security = "hybrid"
[sink.tls]
certificate = "{files / "client.pem"}"
key = "{files / "client.key"}"
ca = "{files / "ca.pem"}"
[sink.sasl]
username = "{USER}"
password_file = "{directory / "password"}"
"""


def roll(kafka: Kafka, seconds: float) -> int:
    """Stop and start one broker after the other, each when all replicas have caught up; returns how often."""
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        assert wait_until(lambda: in_sync(kafka, [STREAM, TWIN]) == len(BROKERS), SYNC_SECONDS, every_seconds=0.2)
        time.sleep(CALM_SECONDS)
        kafka.restart(BROKERS[count % len(BROKERS)], clean=True)
        count += 1
    return count


def test_a_cluster_that_is_rolled_under_load_gets_each_record_once(
    cluster: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = (STREAM, TWIN, LEDGER)
    create_topics(cluster, topics, replicas=BROKERS, configs={"min.insync.replicas": "2"})
    for topic in topics:
        allow(cluster, USER, topic, ["Write", "Read"])
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_receiver(sink(cluster, tmp_path), listeners={"localhost:0": '["hybrid", "classical"]'})
        site.write_forwarder(site.start_receiver())
        lines = site.directory / "http.log"
        lines.touch()
        site.write_stream(STREAM, '[source]\ntype = "file"\npaths = ["http.log"]\n')
        site.write_stream(TWIN, f'security = "classical"\nmirror_of = "{STREAM}"\n')
        site.start_forwarder()
        feeder = Feeder(lines, STREAM, seed=1)
        feeder.start()
        assert site.wait_until_acknowledged(1, [STREAM, TWIN], PATIENCE_SECONDS), site.forwarder.tail()
        began = time.monotonic()
        rolled = roll(cluster, ROLL_SECONDS)
        lasted = time.monotonic() - began
        feeder.stop()
        assert site.wait_until_drained([STREAM, TWIN], SYNC_SECONDS), site.streams()
        rows = site.streams()
        found = [judge(name, feeder.sent, read_topic(cluster.internal, name), source=STREAM) for name in (STREAM, TWIN)]
    with capsys.disabled():
        print(f"\nrolled {rolled} brokers in {lasted:.0f} s, {feeder.sent} records")
        for name, each in zip((STREAM, TWIN), found, strict=True):
            times = rows[name]["batch_duration_seconds"]
            print(
                f"{name:14} missing {each.missing} twice {each.twice} out of order {each.out_of_order}, batch duration "
                f"median {times['median'] * 1e3:.0f} p99 {times['p99'] * 1e3:.0f} ms of {times['count']}"
            )
    assert all(each.exact for each in found), found
    assert [rows[name]["resets"] for name in (STREAM, TWIN)] == [0, 0]
    assert [rows[name]["records"]["dead_lettered"] for name in (STREAM, TWIN)] == [0, 0]
