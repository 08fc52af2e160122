"""Constant fields, keys and headers, as consumers that no one here wrote read them; also after splits and a replay."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.lab import adminclient
from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.oracle import messages_in
from bench.lab.site import Site
from logreceiver.replay import replay_to
from tests.support.cluster import create_topics

RECORDS = 4_000
STREAM = """\
key_field = "client_ip"
[add]
host = "${HOST_OF_TEST}"
zone = 7
[headers]
host = "${HOST_OF_TEST}"
empty = ""
[source]
type = "file"
paths = ["in.log"]
"""


class Message(NamedTuple):
    """What librdkafka reads of a record."""

    key: bytes | None
    headers: Any
    value: bytes | None


def consumed(bootstrap: str, topic: str) -> list[Message]:
    return [Message(each.key(), each.headers(), each.value()) for each in messages_in(bootstrap, topic)]


def written(directory: Path) -> list[bytes]:
    """The lines of the stream's file: records, and some that are not."""
    lines = list(generate_http(RECORDS - 3, seed=5))
    lines[100:100] = [b"{}", b"plain text", b'{"host":"mine","client_ip":17}']
    (directory / "in.log").write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


def expected(lines: list[bytes]) -> list[Message]:
    def message(line: bytes) -> Message:
        members: dict[str, Any]
        try:
            members = json.loads(line)
        except ValueError:
            members = {"message": line.decode(), "invalid": True}
        rest = line[1:] if line.startswith(b"{") else json.dumps(members, separators=(",", ":")).encode()[1:]
        key = members.get("client_ip")
        return Message(
            None if key is None else str(key).encode(),
            [("host", b"web-1"), ("empty", b"")],
            b'{"host":"web-1","zone":7' + (b"," if members else b"") + rest,
        )

    return [message(line) for line in lines]


def run(site: Site, sink: str, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], int]:
    """The lines that were written, once their records are stored, and in how many batches they are."""
    monkeypatch.setenv("HOST_OF_TEST", "web-1")
    site.make_pki()
    site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'})
    site.write_forwarder(site.start_receiver())
    lines = written(site.directory)
    site.write_stream(name, STREAM)
    site.start_forwarder()
    assert site.wait_until_acknowledged(RECORDS, [name], seconds=60), site.forwarder.tail()
    batches, _ = adminclient.batch_durations(site.admin_address, name, 0)
    assert site.forwarder.stop() == 0
    assert site.receiver.stop() == 0
    return lines, batches


@pytest.mark.kafka
@pytest.mark.parametrize("max_message_bytes", [1_048_588, 20_000])
def test_a_consumer_sees_keys_headers_and_fields_also_where_batches_had_to_be_split(
    tmp_path: Path, kafka: Kafka, monkeypatch: pytest.MonkeyPatch, max_message_bytes: int
) -> None:
    name = f"keys-{max_message_bytes}"
    create_topics(kafka, [name], configs={"max.message.bytes": str(max_message_bytes)})
    with Site(tmp_path) as site:
        lines, batches = run(site, f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]', name, monkeypatch)
    assert (batches > 10) == (max_message_bytes < 100_000)
    assert consumed(kafka.bootstrap, name) == expected(lines)


@pytest.mark.kafka
def test_the_embedded_log_keeps_keys_and_headers_and_a_replay_that_splits_batches_too(
    tmp_path: Path, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "keys-replayed"
    with Site(tmp_path) as site:
        lines, _ = run(site, 'type = "log"\ndirectory = "sink"', name, monkeypatch)
        segments = ",".join(str(path) for path in sorted((site.directory / "sink" / f"{name}-0").glob("*.log")))
        dump = ["--deep-iteration", "--print-data-log", "--files", segments]
        dumped = kafka.run_tool("kafka.tools.DumpLogSegments", dump).decode()
        create_topics(kafka, [name], configs={"max.message.bytes": "20000"})
        asyncio.run(replay_to(site.directory / "sink", name, f"kafka://{kafka.bootstrap}"))
    messages = expected(lines)
    assert re.findall(r"headerKeys: \[(.*?)\]", dumped) == ["host,empty"] * RECORDS
    keys = [message.key.decode() for message in messages if message.key is not None]
    assert re.findall(r" key: (\S*)", dumped) == keys
    assert re.findall(r"payload: (.*)$", dumped, re.MULTILINE) == [(each.value or b"").decode() for each in messages]
    assert consumed(kafka.bootstrap, name) == messages
