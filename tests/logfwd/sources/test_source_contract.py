"""What every source promises the pipeline and its clients, checked on each of them: one suite, a row for each source.

A new source gets a row in `HARNESSES` here and one in `KINDS` of tests/support/source_worker.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from logfwd.definition import BatchLimits
from logfwd.intake.batcher import Portion
from logfwd.pipeline import Pipeline
from logfwd.sources import Source
from logfwd.sources.file.source import FileTail
from logfwd.sources.front import Front, Handle, Outcome
from logfwd.sources.http.source import Requests as HttpSource
from logfwd.sources.position import Block, Position
from logfwd.sources.settings import FileSource
from logfwd.sources.stdin import Stdin
from logfwd.sources.syslog.inbox import SyslogMessages as SyslogSource
from logfwd.spool.committer import Committer
from logfwd.spool.store import Spool
from streams.errors import NoRoom, PipelineError, SpoolError
from tests.support.http_source import Listening
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.pipelines import STREAM, pipeline_on, records_in, running
from tests.support.push_source import BadRequest, Push
from tests.support.source_worker import FORMATS, IN_A_REQUEST, KINDS, RECORDS
from tests.support.syslog_clients import SyslogClient

BLOCK_BYTES, MAX_RECORD_BYTES = 64, 60
SMALL = msgspec.structs.replace(STREAM, batch=BatchLimits(max_batch_bytes=100, linger_seconds=0.002))


def line(number: int) -> bytes:
    return b'{"number":%d}\n' % number


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(line(number) for number in range(start, start + count))


class Harness(Protocol):
    """One kind of source and what feeds it. It outlives the pipelines of a test, as the forwarder does."""

    def __init__(self, directory: Path) -> None: ...

    def source(self, handle: Handle) -> Source:
        """A source for a new pipeline."""

    async def feed(self, data: bytes) -> None:
        """Have the source read whole lines; returns when they are on their way to it."""

    async def settled(self) -> None:
        """Wait for what the clients of the source wait for."""

    async def close(self) -> None: ...


class Files:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "input.log"
        self._path.touch()

    def source(self, _: Handle) -> Source:
        settings = FileSource(paths=(str(self._path),), scan_seconds=0.02)
        return FileTail(settings, max_record_bytes=MAX_RECORD_BYTES, block_bytes=BLOCK_BYTES)

    async def feed(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)

    async def settled(self) -> None:
        pass

    async def close(self) -> None:
        pass


class StandardInput:
    def __init__(self, _: Path) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def source(self, handle: Handle) -> Source:
        def make() -> Stdin:
            return Stdin(max_record_bytes=MAX_RECORD_BYTES, block_bytes=BLOCK_BYTES, fd=self._reader)

        return handle.front.keep("stdin", make)

    async def feed(self, data: bytes) -> None:
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._writer, data) :]
            await asyncio.sleep(0)

    async def settled(self) -> None:
        pass

    async def close(self) -> None:
        os.close(self._writer)
        os.close(self._reader)


class Requests:
    """Clients that send a body again until it is stored."""

    with_key = False

    def __init__(self, _: Path) -> None:
        self._push: Push | None = None
        self._clients: list[asyncio.Task[None]] = []

    def source(self, handle: Handle) -> Source:
        self._push = Push(handle, block_bytes=BLOCK_BYTES)
        return self._push

    async def feed(self, data: bytes) -> None:
        key = b"key %d" % len(self._clients) if self.with_key else None
        self._clients.append(asyncio.create_task(self._client(data, key)))
        await asyncio.sleep(0)

    async def _client(self, data: bytes, key: bytes | None) -> None:
        while True:
            assert self._push is not None
            with contextlib.suppress(PipelineError):
                if await self._push.send(data, key) is Outcome.DONE:
                    return
            await asyncio.sleep(0.005)

    async def settled(self) -> None:
        await asyncio.gather(*self._clients)

    async def close(self) -> None:
        for client in self._clients:
            client.cancel()


class KeyedRequests(Requests):
    with_key = True


class HttpRequests(Requests):
    """The same over a real listener."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._directory = directory
        self._listening: Listening | None = None
        self._source: HttpSource | None = None

    def source(self, handle: Handle) -> Source:
        def make() -> Listening:
            return Listening(handle.front, self._directory, block_bytes=BLOCK_BYTES)

        self._listening = handle.front.keep("listening", make)
        self._source = HttpSource(handle)
        return self._source

    async def feed(self, data: bytes) -> None:
        """Returns when the request was handed over, or refused for the first time."""
        assert self._source is not None
        before, self._refused = self._source.lag_bytes(), False
        await super().feed(data)
        client = self._clients[-1]
        await eventually(lambda: client.done() or self._refused or self._source.lag_bytes() > before)  # type: ignore[union-attr]

    async def _client(self, data: bytes, key: bytes | None) -> None:
        while True:
            assert self._listening is not None
            reply = await self._listening.post(data, key.decode() if key is not None else "")
            if reply is not None and reply.status == 200:
                return
            assert reply is None or reply.status in (429, 503)
            self._refused = True
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        await super().close()
        if self._listening is not None:
            await self._listening.close()


class KeyedHttpRequests(HttpRequests):
    with_key = True


class SyslogMessages:
    """One connection over TCP; what is not a syslog message is passed on as it came, JSON included."""

    def __init__(self, directory: Path) -> None:
        self._sending: SyslogClient | None = None

    def source(self, handle: Handle) -> Source:
        self._sending = handle.front.keep("client", lambda: SyslogClient(handle.front))
        return SyslogSource(handle, BLOCK_BYTES)

    async def feed(self, data: bytes) -> None:
        assert self._sending is not None
        await self._sending.send(data)

    async def settled(self) -> None:
        pass

    async def close(self) -> None:
        if self._sending is not None:
            await self._sending.close()


HARNESSES: dict[str, type[Harness]] = {
    "file": Files,
    "stdin": StandardInput,
    "push": Requests,
    "push_with_key": KeyedRequests,
    "http": HttpRequests,
    "http_with_key": KeyedHttpRequests,
    "syslog": SyslogMessages,
}
OF_REQUESTS = {kind for kind, harness in HARNESSES.items() if issubclass(harness, Requests)}
REPEATS_AFTER_AN_UNKNOWN_OUTCOME = {"push", "http"}
LOST_WITH_THE_PROCESS = {"stdin", "syslog"}
"""Sources that promise less: docs/delivery.md."""


def test_every_kind_has_a_harness_and_is_killed() -> None:
    assert set(HARNESSES) == set(KINDS)


@pytest.fixture(params=HARNESSES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def harness(kind: str, tmp_path: Path) -> AsyncIterator[Harness]:
    made = HARNESSES[kind](tmp_path)
    yield made
    await made.close()


class Life:
    """A spool, a source and its pipeline, while they last."""

    def __init__(self, spool: Spool, source: Source, pipeline: Pipeline, task: asyncio.Task[None]) -> None:
        self.spool, self.source, self.pipeline, self.task = spool, source, pipeline, task

    @property
    def backlog(self) -> Any:
        return self.pipeline.senders[0].backlog

    async def durable(self, records: int) -> None:
        await eventually(
            lambda: self.backlog.totals.accepted >= records and all(row.committed for row in self.backlog.rows)
        )


@contextlib.asynccontextmanager
async def life(path: Path, front: Front, harness: Harness) -> AsyncIterator[Life]:
    """What the forwarder builds for a stream, and takes down in the same order."""
    async with Spool(path) as spool:
        with front.open("s") as handle:
            source = harness.source(handle)
            async with pipeline_on(spool, source, SMALL) as pipeline, running(pipeline) as task:
                handle.start(pipeline.room_bytes, spool.key)
                yield Life(spool, source, pipeline, task)


# -- blocks --------------------------------------------------------------------------------------------------------


async def test_blocks_are_whole_records_in_order_and_lag_is_what_is_not_durable(harness: Harness) -> None:
    with Front().open("s") as handle:
        source, got = harness.source(handle), list[Block]()
        handle.start(lambda: 1 << 20, no_key)
        assert source.lag_bytes() == 0
        await harness.feed(lines(40))
        async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(source.blocks({})) as blocks:
            while len(b"".join(block.data for block in got)) < len(lines(40)):
                got.append(await anext(blocks))
            assert b"".join(block.data for block in got) == lines(40)
            assert all(block.data.endswith(b"\n") for block in got if block.ends is None and block.data)
            assert source.lag_bytes() >= len(lines(40)) - MAX_RECORD_BYTES
            for block in got:
                source.committed(Portion([block]).positions())
                if block.receipt is not None:
                    block.receipt.done()
            assert source.lag_bytes() == 0
        await harness.settled()
        assert source.health() == {}


async def no_key(_: bytes) -> None:
    return None


async def test_after_any_commit_the_next_life_goes_on_exactly_there(harness: Harness, kind: str) -> None:
    """Each life commits one block more, and is then cut off with others on their way."""
    front, committed, positions = Front(), b"", dict[str, Position]()
    for _ in range(6):
        with front.open("s") as handle:
            source = harness.source(handle)
            handle.start(lambda: 1 << 20, no_key)
            if not committed:
                await harness.feed(lines(40))
            async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(source.blocks(dict(positions))) as blocks:
                first = await anext(blocks)
                while not first.data:
                    first = await anext(blocks)
                if kind in OF_REQUESTS:
                    assert first.data == lines(40)[: len(first.data)], "the client begins again: nothing was answered"
                    continue
                assert lines(40)[len(committed) :].startswith(first.data)
                await anext(blocks)
            committed += first.data
            positions |= Portion([first]).positions()
            source.committed(positions)


async def test_what_is_stopped_stores_all_that_it_took(harness: Harness, tmp_path: Path) -> None:
    path, front = tmp_path / "s.spool", Front()
    async with life(path, front, harness) as first:
        await harness.feed(lines(20))
        await first.durable(20)
        first.pipeline.stop_reading()
        await asyncio.sleep(0.02)
        assert first.source.lag_bytes() == 0
        assert list(first.source.stop()) == []
    await harness.settled()
    assert b"".join(record + b"\n" for record in await records_in(path)) == lines(20)


# -- garbage -------------------------------------------------------------------------------------------------------


async def test_any_bytes_are_stored_or_refused_and_what_follows_is_stored(harness: Harness, tmp_path: Path) -> None:
    path, front = tmp_path / "s.spool", Front()
    garbage = bytes(range(256)) * 3 + b"\n" + b"\xff\n{\n[1]\n" + b"{" * 2000 + b"\n"
    async with life(path, front, harness) as only:
        await harness.feed(garbage)
        await harness.feed(lines(3))
        await eventually(lambda: only.backlog.totals.accepted > 3 and not only.source.lag_bytes())
        assert not only.task.done()
        assert only.backlog.totals.invalid >= 4
    stored = await records_in(path)
    assert [json.loads(record) for record in stored[-3:]] == [{"number": number} for number in range(3)]
    assert all(json.loads(record)["invalid"] for record in stored[:-3])


async def test_a_request_that_makes_no_sense_is_refused_by_name_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    path, front, harness = tmp_path / "s.spool", Front(), KeyedRequests(tmp_path)
    async with life(path, front, harness) as only:
        assert isinstance(only.source, Push)
        with pytest.raises(BadRequest):
            await only.source.send(lines(3) + b"half a line")
        with pytest.raises(BadRequest):
            await only.source.send(lines(3) + b"half a line", b"key")
        assert await only.source.send(lines(1), b"key") is Outcome.DONE
    assert await records_in(path) == [line(0).strip()]


# -- pressure ------------------------------------------------------------------------------------------------------


async def test_a_full_spool_reaches_the_client_and_what_it_keeps_back_comes_later(
    harness: Harness, tmp_path: Path, kind: str
) -> None:
    path, front, count = tmp_path / "s.spool", Front(), 600
    async with life(path, front, harness) as only:
        await harness.feed(lines(1))
        await only.durable(1)
        only.backlog.max_bytes -= only.backlog.room_bytes - 400
        feeding = asyncio.ensure_future(harness.feed(lines(count, 1)))
        if isinstance(only.source, Push):
            with pytest.raises(NoRoom):
                await only.source.send(lines(count, 1))
            assert only.source.lag_bytes() == 0, "nothing was taken"
        elif kind in OF_REQUESTS:
            await feeding
            assert only.source.lag_bytes() == 0, "the client was refused"
        elif kind == "stdin":
            await asyncio.sleep(0.3)
            assert not feeding.done(), "the pipe is full"
            assert only.source.lag_bytes() < 100 * BLOCK_BYTES
        else:
            await eventually(lambda: only.source.lag_bytes() > 0)
        await asyncio.sleep(0.1)
        assert only.backlog.waiting_bytes <= only.backlog.max_bytes
        only.backlog.max_bytes = 1 << 30
        await feeding
        await only.durable(count + 1)
        await harness.settled()
    assert b"".join(record + b"\n" for record in await records_in(path)) == lines(count + 1)


# -- answers -------------------------------------------------------------------------------------------------------


async def test_nobody_is_answered_before_the_commit(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit, commit = threading.Event(), Committer._commit

    def held_back(committer: Committer, connection: Any, entries: Any) -> SpoolError | None:
        may_commit.wait(PATIENCE_SECONDS)
        return commit(committer, connection, entries)

    monkeypatch.setattr(Committer, "_commit", held_back)
    async with life(tmp_path / "s.spool", Front(), harness) as only:
        try:
            await harness.feed(lines(20))
            await eventually(lambda: only.backlog.totals.accepted > 0)
            await eventually(lambda: only.source.lag_bytes() == len(lines(20)))
        finally:
            may_commit.set()
        await only.durable(20)
        await harness.settled()
        await eventually(lambda: not only.source.lag_bytes())


# -- failed commits ------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the next commit fail: before or after it is on disk, so that its outcome is unknown to everyone."""
    at, commit = [""], Committer._commit

    def failing_commit(committer: Committer, connection: Any, entries: Any) -> SpoolError | None:
        moment, at[0] = at[0], ""
        if moment == "before":
            committer.broken = SpoolError("disk I/O error")
        error = commit(committer, connection, entries)
        if moment == "after":
            error = committer.broken = SpoolError("disk I/O error")
        return error

    monkeypatch.setattr(Committer, "_commit", failing_commit)
    return lambda moment: at.__setitem__(0, moment)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_failed_commit_loses_nothing_and_repeats_nothing(
    harness: Harness, tmp_path: Path, kind: str, moment: str, failing: Callable[[str], None]
) -> None:
    path, front = tmp_path / "s.spool", Front()
    async with life(path, front, harness) as first:
        await harness.feed(lines(3))
        await first.durable(3)
        failing(moment)
        await harness.feed(lines(37, 3))
        await asyncio.wait({first.task}, timeout=PATIENCE_SECONDS)
        assert isinstance(first.task.exception(), SpoolError)
    async with life(path, front, harness) as second:
        await harness.feed(lines(3, 40))
        await eventually(lambda: second.backlog.totals.accepted >= 43)
        await harness.settled()
        await eventually(lambda: not second.source.lag_bytes())
        await second.durable(43)
    numbers = [json.loads(record)["number"] for record in await records_in(path)]
    assert sorted(set(numbers)) == list(range(43))
    if kind not in REPEATS_AFTER_AN_UNKNOWN_OUTCOME:
        assert sorted(numbers) == list(range(43))


# -- kill -9 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*HARNESSES, *FORMATS])
def test_killed_around_each_commit_it_loses_nothing_and_repeats_nothing(kind: str, tmp_path: Path) -> None:
    """A stream with an idempotency key, and files: once. Without a key: what was not answered may come twice. Standard
    input: what was read and not committed is lost with the process, and nothing comes twice."""
    worker = subprocess.run(
        [sys.executable, "-m", "tests.support.source_worker", kind, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert worker.returncode == 0, worker.stderr
    points = [json.loads(line) for line in worker.stdout.splitlines()]
    assert len(points) > 2 * RECORDS // IN_A_REQUEST, "before and after a commit for each third of the input, at least"
    assert [point["died"] for point in points] == [True] * (len(points) - 1) + [False]
    for point in points:
        numbers, everything = point["numbers"], list(range(RECORDS))
        assert point["halves"] <= (kind in LOST_WITH_THE_PROCESS), "the rest of a line whose beginning is lost"
        if not point["died"]:
            assert numbers == everything, point
        elif kind in LOST_WITH_THE_PROCESS:
            assert all(later > earlier for earlier, later in pairwise(numbers)), point
        elif kind in REPEATS_AFTER_AN_UNKNOWN_OUTCOME:
            assert sorted(set(numbers)) == everything, point
            answered = point["answered"] * IN_A_REQUEST
            assert numbers[:answered] == everything[:answered], "what was answered is there once"
            in_doubt = set(range(answered, answered + IN_A_REQUEST))
            assert {number for number in numbers if numbers.count(number) > 1} <= in_doubt, point
        else:
            assert numbers == everything, point
