"""A replay that is begun again goes on where it was: whatever ended it, and whenever, each record arrives once."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logreceiver.replay import ReplayResult, replay
from logreceiver.replayed import FOLDER, kept
from logreceiver.sinks import Kind, Outcome, RunState, Sink, TopicInfo
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.read import readers
from logreceiver.sinks.log.sink import LogSink
from streams.errors import Code, ConfigError, SinkUnavailable
from streams.records.batch import parse_header
from tests.support.batches import batch, values
from tests.support.sinks import ModelHarness

TOPIC, TARGET = "http", TopicInfo("copy", "id", 1, 1 << 20)
BATCHES = 6


class Killed(BaseException):
    """The process of the replay ends here."""


class Mortal:
    """A sink whose replay is killed at one of its batches, before or after that is stored; large ones are refused."""

    def __init__(self, sink: Sink, at: int = -1, *, stored: bool = False, most_records: int = 100) -> None:
        self._sink, self._at, self._stored, self._most = sink, at, stored, most_records
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        self.asked += 1
        return await self._sink.ask(topic, partition, producer_id)

    async def produce(self, topic: str, partition: int, made: memoryview) -> Outcome:
        if parse_header(made).record_count > self._most:
            return Outcome.refused(Code.TOO_LARGE)
        self._at -= 1
        if self._at == -1 and not self._stored:
            raise Killed
        outcome = await self._sink.produce(topic, partition, made)
        if self._at == -1:
            raise Killed
        return outcome


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    await grown(tmp_path, 0, BATCHES)
    return tmp_path


async def grown(directory: Path, first: int, count: int) -> None:
    """A closed log with more batches of ten records."""
    sink = LogSink(sink_settings.LogSink(directory=directory, max_segment_bytes=1 << 20))
    await sink.start()
    await sink.topic(TOPIC)
    for number in range(first, first + count):
        assert (await sink.produce(TOPIC, 0, batch(7, 10 * number))).kind is Kind.STORED
    await sink.close()


async def replayed(directory: Path, sink: Any, *, again: bool = False, topic_id: str = "id") -> ReplayResult:
    info = msgspec.structs.replace(TARGET, topic_id=topic_id)
    with kept(directory, TOPIC, info, "cluster", again=again) as places:
        return await replay(sink, readers(directory, TOPIC), info, places)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9], ids=["every place kept", "only the first place kept"])
@pytest.mark.parametrize("most_records", [100, 4], ids=["whole", "in pieces"])
async def test_killed_at_any_batch_and_begun_again_each_record_arrives_once(
    directory: Path, save_seconds: float, most_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.replayed.SAVE_SECONDS", save_seconds)
    pieces = BATCHES * (1 if most_records == 100 else 4)
    for at in range(pieces):
        for stored in (False, True):
            target = ModelHarness()
            with pytest.raises(Killed):
                await replayed(directory, Mortal(target.sink, at, stored=stored, most_records=most_records), again=True)
            already = len(target.values("copy"))
            with pytest.raises(Killed):  # and once more at once
                await replayed(directory, Mortal(target.sink, 0, most_records=most_records))
                raise Killed  # all was stored before
            result = await replayed(directory, Mortal(target.sink, most_records=most_records))
            assert target.values("copy") == values(10 * BATCHES)
            assert result.records == 10 * BATCHES - already


async def test_a_replay_after_one_that_ended_copies_what_was_added_since(directory: Path) -> None:
    target = ModelHarness()
    assert (await replayed(directory, target.sink)).records == 10 * BATCHES
    assert await replayed(directory, target.sink) == ReplayResult(0, 0, "copy")
    await grown(directory, BATCHES, 2)
    sink = Mortal(target.sink)
    assert await replayed(directory, sink) == ReplayResult(20, 2, "copy")
    assert target.values("copy") == values(10 * BATCHES + 20)
    assert sink.asked == 0, "nothing was under way, so the target may have forgotten the producer"


async def test_again_copies_everything_again_and_so_does_a_topic_that_was_created_anew(directory: Path) -> None:
    target = ModelHarness()
    for number, options in enumerate(({}, {"again": True}, {"topic_id": "other"})):
        assert (await replayed(directory, target.sink, **options)).records == 10 * BATCHES  # type: ignore[arg-type]
        assert len(target.values("copy")) == 10 * BATCHES * (number + 1)


async def test_a_target_that_forgot_an_interrupted_replay_is_not_guessed_about(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.replayed.SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        await replayed(directory, Mortal(ModelHarness().sink, 3))
    other = ModelHarness()
    with pytest.raises(SinkUnavailable, match="--again"):
        await replayed(directory, other.sink)
    assert other.values("copy") == []


async def test_where_nothing_is_known_to_be_stored_a_forgotten_producer_is_believed_for_an_hour(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        await replayed(directory, Mortal(ModelHarness().sink, 0))
    now = time.time()
    monkeypatch.setattr("logreceiver.replay.time.time", lambda: now + 4000)
    with pytest.raises(SinkUnavailable, match="--again"):
        await replayed(directory, ModelHarness().sink)
    monkeypatch.undo()
    assert (await replayed(directory, ModelHarness().sink)).records == 10 * BATCHES


async def test_a_target_that_has_more_than_the_log_is_said(directory: Path, tmp_path_factory: Any) -> None:
    target = ModelHarness()
    with pytest.raises(Killed):
        await replayed(directory, Mortal(target.sink, 5, stored=True))
    shorter = tmp_path_factory.mktemp("shorter")
    await grown(shorter, 0, 2)
    (shorter / FOLDER).symlink_to(directory / FOLDER)
    with pytest.raises(SinkUnavailable, match="that the log lacks"):
        await replayed(shorter, target.sink)


async def test_two_replays_of_a_topic_to_one_target_are_not_at_work_at_once(directory: Path) -> None:
    with kept(directory, TOPIC, TARGET, "cluster"):
        with pytest.raises(ConfigError, match="another replay"):
            await replayed(directory, ModelHarness().sink)
        assert (await replayed(directory, ModelHarness().sink, topic_id="other")).batches == BATCHES


async def test_places_are_private_and_damaged_ones_are_not_guessed_about(directory: Path) -> None:
    await replayed(directory, ModelHarness().sink)
    (path,) = (directory / FOLDER).glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole.replace(b"cluster_id", b"cluster\xff")):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="--again"):
            await replayed(directory, ModelHarness().sink)
    assert (await replayed(directory, ModelHarness().sink, again=True)).batches == BATCHES


async def test_a_directory_that_cannot_be_written_is_said(directory: Path) -> None:
    (directory / FOLDER).write_text("in the way")
    with pytest.raises(ConfigError, match="keeps its place there"):
        await replayed(directory, ModelHarness().sink)
