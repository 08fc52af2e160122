"""`logreceiver validate --connect` looks at the sink as a receiver would use it, and creates nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog

from bench.lab.kafka import Kafka
from logreceiver.commands.connect import look
from logreceiver.config import Allow, Ledger, ReceiverConfig
from logreceiver.sinks.kafka import inspection
from logreceiver.sinks.settings import KafkaSink, LogSink
from streams.errors import SinkUnavailable
from streams.telemetry import logs
from tests.support.cluster import create_topics
from tests.support.installation import Installation


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command ends its process; here the logs of other tests go on."""
    monkeypatch.setattr(logs, "silence", lambda: structlog.configure(processors=[_drop]))
    yield
    structlog.reset_defaults()


def _drop(*_: object) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def config(installation: Installation, sink: KafkaSink | LogSink, *rules: Allow, ledger: str) -> ReceiverConfig:
    base = installation.receiver_config()
    return msgspec.structs.replace(base, sink=sink, allow=rules or base.allow, ledger=Ledger(topic=ledger))


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.kafka
async def test_brokers_and_topics_are_named_with_what_they_lack(
    kafka: Kafka, installation: Installation, topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topics(kafka, [topic_name])
    dead = nowhere()
    sink = KafkaSink(brokers=(dead, *kafka.bootstrap.split(",")))
    rules = [
        Allow(identity="*", streams=(topic_name, f"{topic_name}-missing")),
        Allow(identity="*", streams=("app-*",)),
    ]
    with pytest.raises(SinkUnavailable, match="3 faults"):
        await look(config(installation, sink, *rules, ledger=f"{topic_name}-ledger"))
    said = capsys.readouterr()
    assert f"sink: fault: broker {dead}: no connection to {dead}" in said.err
    assert f"sink: fault: topic {topic_name}-missing: the topic does not exist" in said.err
    assert f"sink: fault: topic {topic_name}-ledger: the topic does not exist" in said.err
    assert "answers for cluster" in said.out
    assert "sink: producer ids: granted" in said.out
    assert f"sink: topic {topic_name}: 1 partition, batches up to" in said.out
    assert "topics of streams app-* are looked at once such a stream comes" in said.out


@pytest.mark.kafka
async def test_topics_that_would_be_created_are_said_and_not_created(
    kafka: Kafka, installation: Installation, topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = KafkaSink(brokers=tuple(kafka.bootstrap.split(",")), create_topics=True)
    for _ in range(2):
        await look(config(installation, sink, Allow(identity="*", streams=(topic_name,)), ledger=f"{topic_name}-l"))
        assert f"topic {topic_name}: is not there, and will be created" in capsys.readouterr().out


async def test_a_broker_that_advertises_an_address_nobody_answers_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no connection to" in await inspection._unreachable(KafkaSink(brokers=("127.0.0.1:1",)), "127.0.0.1:1")


@pytest.mark.parametrize("state", ["there", "not there yet", "a file"])
async def test_the_directory_of_a_log_is_looked_at(
    state: str, installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "sink"
    if state == "there":
        directory.mkdir()
    elif state == "a file":
        directory.touch()
    settings = config(installation, LogSink(directory=directory), ledger="logfwd.ledger")
    if state == "a file":
        with pytest.raises(SinkUnavailable, match="1 fault"):
            await look(settings)
        assert "is not a directory" in capsys.readouterr().err
        return
    await look(settings)
    assert ("can be written to" if state == "there" else "will be made") in capsys.readouterr().out
    assert directory.exists() == (state == "there")
