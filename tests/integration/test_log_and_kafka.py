"""The embedded log and a real Apache Kafka: its tools read the log's files, and a replay arrives whole."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from logreceiver.replay import ReplayResult, replay, replay_to, sink_in
from logreceiver.replayed import kept
from logreceiver.sinks import Kind, Outcome, Sink
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.read import readers
from logreceiver.sinks.log.sink import LogSink
from streams.errors import Code, ConfigError, SinkUnavailable
from streams.records.batch import Codec, OpenBatch, stamp
from streams.records.body import frame
from tests.support.batches import batch, put, values
from tests.support.sinks import ModelHarness, Unsteady

pytestmark = pytest.mark.kafka
TOPIC = "http"


async def filled(directory: Path, *, batches: int, partitions: int = 1) -> LogSink:
    """A closed log with that many batches of ten records in each partition."""
    sink = LogSink(sink_settings.LogSink(directory=directory, max_segment_bytes=2000, partition_count=partitions))
    await sink.start()
    await sink.topic(TOPIC)
    for partition in range(partitions):
        for number in range(batches):
            outcome = await sink.produce(TOPIC, partition, batch(partition, 10 * number))
            assert outcome.kind is Kind.STORED
    await sink.close()
    return sink


async def test_kafkas_own_tool_reads_every_segment_without_complaint(kafka: Kafka, tmp_path: Path) -> None:
    await filled(tmp_path, batches=30)
    paths = sorted((tmp_path / f"{TOPIC}-0").glob("*.log"))
    assert len(paths) > 1
    files = ",".join(map(str, paths))
    out = kafka.run_tool(
        "kafka.tools.DumpLogSegments", ["--deep-iteration", "--print-data-log", "--files", files]
    ).decode()
    offsets = [int(found) for found in re.findall(r"^\| offset: (\d+) ", out, re.MULTILINE)]
    assert offsets == list(range(300))
    assert [found.encode() for found in re.findall(r"payload: (.*)$", out, re.MULTILINE)] == values(300)
    assert "isvalid: true" in out
    assert "isvalid: false" not in out
    assert not re.search(r"mismatch|Non-consecutive|invalid bytes", out, re.IGNORECASE)


async def test_other_readers_read_large_batches_whose_records_came_in_pieces(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    lines = [b'{"n":%d,"x":"%b"}' % (n, b"y" * (n % 400)) for n in range(20_000)]
    pieces = OpenBatch(Codec.ZSTD)
    for start in range(0, len(lines), 3000):
        put(pieces, *frame(lines[start : start + 3000], 1 << 30, first=pieces.record_count))
    packed = pieces.close(int(time.time() * 1000))
    assert packed.uncompressed_bytes > 4_000_000
    sink = LogSink(sink_settings.LogSink(directory=tmp_path))
    await sink.start()
    await sink.topic(TOPIC)
    stamped = stamp(packed.payload, producer_id=0, producer_epoch=0, base_sequence=0)
    assert (await sink.produce(TOPIC, 0, memoryview(stamped))).kind is Kind.STORED
    await sink.close()
    (path,) = (tmp_path / f"{TOPIC}-0").glob("*.log")
    dump = ["--deep-iteration", "--print-data-log", "--files", str(path)]
    dumped = (await asyncio.to_thread(kafka.run_tool, "kafka.tools.DumpLogSegments", dump)).decode()
    assert [found.encode() for found in re.findall(r"payload: (.*)$", dumped, re.MULTILINE)] == lines
    await replay_to(tmp_path, TOPIC, f"kafka://{kafka.bootstrap}/{topic_name}")
    assert await asyncio.to_thread(lambda: list(kafka.consume(topic_name))) == lines
    assert await asyncio.to_thread(lambda: list(read_topic(kafka.bootstrap, topic_name))) == lines


async def test_a_replay_to_kafka_holds_what_the_log_holds(kafka: Kafka, tmp_path: Path, topic_name: str) -> None:
    await filled(tmp_path, batches=20, partitions=2)
    result = await replay_to(tmp_path, TOPIC, f"kafka://{kafka.bootstrap}/{topic_name}")
    assert result == ReplayResult(records=400, batches=40, topic=topic_name)
    arrived = await asyncio.to_thread(lambda: list(kafka.consume(topic_name)))
    assert sorted(arrived) == sorted(2 * values(200))


async def test_a_replay_of_nothing_known_or_to_nowhere_is_refused_with_a_reason(tmp_path: Path) -> None:
    await filled(tmp_path, batches=1)
    with pytest.raises(ConfigError, match="nosuch"):
        await replay_to(tmp_path, "nosuch", "kafka://127.0.0.1:9")
    for url in ("http://127.0.0.1:9", "kafka://127.0.0.1", "kafka://127.0.0.1:9/a/b", "127.0.0.1:9"):
        with pytest.raises(ConfigError, match=f"--to: '{url}' is not kafka://HOST:PORT"):
            await replay_to(tmp_path, TOPIC, url)


async def test_a_replay_to_a_file_goes_the_way_that_its_sink_says(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    source = LogSink(sink_settings.LogSink(directory=tmp_path / "log"))
    await source.start()
    await source.topic(topic_name)
    for number in range(5):
        assert (await source.produce(topic_name, 0, batch(7, 10 * number))).kind is Kind.STORED
    await source.close()
    path = tmp_path / "target.toml"
    brokers = f'brokers = ["{kafka.bootstrap}"]'
    path.write_text(
        f'[ledger]\ntopic = "x"\n[sink]\ntype = "kafka"\n{brokers}\ncreate_topics = true\npartition_count = 3\n'
    )
    result = await replay_to(tmp_path / "log", topic_name, str(path))
    assert result == ReplayResult(records=50, batches=5, topic=topic_name)
    assert await asyncio.to_thread(lambda: list(kafka.consume(topic_name))) == values(50)


def test_a_target_in_a_file_is_checked_as_a_receivers_sink_is(tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    names = {"certificate": "me.pem", "key": "me.key", "ca": "ca.pem"}
    for name in names.values():
        (tmp_path / name).touch()
    (tmp_path / "password").write_text("secret")
    tls = "".join(f'{key} = "{name}"\n' for key, name in names.items())
    path.write_text(
        f'[sink]\ntype = "kafka"\nbrokers = ["b:9093"]\nsecurity = "hybrid"\nreplication_factor = 3\n[sink.tls]\n{tls}'
        '[sink.sasl]\nusername = "me"\npassword_file = "password"\n'
    )
    found = sink_in(path)
    assert (found.security, found.replication_factor) == ("hybrid", 3)
    assert found.tls is not None
    assert found.sasl is not None
    for text, fault in (
        ('type = "log"\ndirectory = "d"', "sink.type: is not"),
        ('type = "kafka"\nbrokers = ["b:9093"]\nsecurity = "hybrid"', "sink.tls: is missing"),
        ('type = "kafka"\nbrokers = ["b"]', "sink.brokers"),
    ):
        path.write_text(f"[sink]\n{text}\n")
        with pytest.raises(ConfigError, match=fault):
            sink_in(path)


async def replay_into(sink: Sink, directory: Path) -> ReplayResult:
    info = await sink.topic("copy")
    with kept(directory, TOPIC, info, "cluster") as places:
        return await replay(sink, readers(directory, TOPIC), info, places)


STORED: tuple[bool, Outcome | None] = (True, None)
LOST = (False, Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT))
KEPT_UNHEARD = (True, Outcome(Kind.UNCERTAIN, code=Code.UNAVAILABLE))
REFUSED = (False, Outcome(Kind.REFUSED, code=Code.UNAVAILABLE))
TOO_LARGE = (False, Outcome(Kind.REFUSED, code=Code.TOO_LARGE))


@pytest.mark.parametrize(
    "script",
    [
        [LOST],
        [KEPT_UNHEARD],
        [REFUSED],
        [STORED, LOST, KEPT_UNHEARD],
        [STORED, KEPT_UNHEARD, REFUSED],
        [TOO_LARGE],
        [STORED, TOO_LARGE, KEPT_UNHEARD, STORED, LOST],
    ],
)
async def test_a_replay_over_an_unsteady_network_neither_loses_nor_repeats(
    tmp_path: Path, script: list[tuple[bool, Outcome | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.replay._PAUSE_SECONDS", 0.0)
    await filled(tmp_path, batches=4)
    target = ModelHarness()
    result = await replay_into(Unsteady(target.sink, list(script)), tmp_path)
    assert target.values("copy") == values(40)
    assert (result.records, result.batches) == (40, 4)


async def test_a_replay_stops_with_its_place_when_the_broker_says_something_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.replay._PAUSE_SECONDS", 0.0)
    await filled(tmp_path, batches=4)
    sink = Unsteady(ModelHarness().sink, [STORED, LOST])

    async def forgotten(*_: object) -> None:
        return None

    monkeypatch.setattr(sink, "ask", forgotten)
    with pytest.raises(SinkUnavailable, match="before offset 10 of partition 0"):
        await replay_into(sink, tmp_path)
