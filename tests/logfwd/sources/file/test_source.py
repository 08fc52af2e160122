"""The file source as the pipeline uses it: woken by writes, cancelled at any time, at full speed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from logfwd.intake.batcher import Portion
from logfwd.sources.file.source import FileTail
from logfwd.sources.position import Block, Position
from logfwd.sources.settings import FileSource
from tests.logfwd.sources.file.follow_harness import append, numbered
from tests.support.patience import PATIENCE_SECONDS


def source(*patterns: Path | str, use_inotify: bool = True, scan_seconds: float = 0.5) -> FileTail:
    settings = FileSource(paths=tuple(map(str, patterns)), scan_seconds=scan_seconds, rotated_wait_seconds=0.3)
    return FileTail(settings, max_record_bytes=4096, use_inotify=use_inotify)


async def lines(blocks: AsyncIterator[Block]) -> Block:
    """The next block that holds lines."""
    while not (block := await anext(blocks)).data:
        pass
    return block


@pytest.mark.parametrize("use_inotify", [True, False])
async def test_a_new_file_and_each_of_its_lines_are_read_soon(tmp_path: Path, use_inotify: bool) -> None:
    tail = source(tmp_path / "*.log", use_inotify=use_inotify)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(tail.blocks({})) as blocks:
        for number in range(5):
            pull = asyncio.ensure_future(lines(blocks))
            await asyncio.sleep(0)
            append(tmp_path / "a.log", b"%d\n" % number)
            assert (await pull).data == b"%d\n" % number


async def test_a_line_in_a_file_that_is_closed_for_want_of_descriptors_is_read_at_once(tmp_path: Path) -> None:
    for name in "abc":
        append(tmp_path / f"{name}.log", b"first\n")
    settings = FileSource(paths=(str(tmp_path / "*.log"),), scan_seconds=3600, max_open_files=1)
    tail = FileTail(settings, max_record_bytes=4096)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(tail.blocks({})) as blocks:
        for _ in "abc":
            tail.committed(Portion([await lines(blocks)]).positions())
        for name in "abcabc":
            pull = asyncio.ensure_future(lines(blocks))
            await asyncio.sleep(0.05)
            append(tmp_path / f"{name}.log", name.encode() + b"\n")
            assert (await pull).data == name.encode() + b"\n"


@pytest.mark.parametrize("is_slow_writer", [False, True])
async def test_a_new_file_is_followed_at_once_though_scans_are_rationed(
    tmp_path: Path, is_slow_writer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.sources.file.pace.URGENT_SCAN_SHARE", 1e-9)
    append(tmp_path / "a.log", b"first\n")
    settings = FileSource(paths=(str(tmp_path / "*.log"),), scan_seconds=3600)
    tail = FileTail(settings, max_record_bytes=4096)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(tail.blocks({})) as blocks:
        tail.committed(Portion([await lines(blocks)]).positions())
        append(tmp_path / "b.log", b"second\n")  # there may be a scan left from before the first line
        tail.committed(Portion([await lines(blocks)]).positions())
        for number in range(3):
            pull = asyncio.ensure_future(lines(blocks))
            new = tmp_path / f"new{number}.log"
            new.touch()
            if is_slow_writer:
                await asyncio.sleep(0.1)
            append(new, b"%d\n" % number)
            assert (await pull).data == b"%d\n" % number


async def test_it_can_be_cancelled_while_waiting_and_continues_from_its_marks(tmp_path: Path) -> None:
    append(tmp_path / "a.log", numbered(0, 10))
    tail = source(tmp_path / "a.log")
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with aclosing(tail.blocks({})) as blocks:
            positions = Portion([await lines(blocks)]).positions()
            tail.committed(positions)
            assert tail.lag_bytes() == 0
            pull = asyncio.ensure_future(lines(blocks))
            await asyncio.sleep(0)
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
        append(tmp_path / "a.log", b"more\n")
        async with aclosing(source(tmp_path / "a.log").blocks(positions)) as blocks:
            assert (await lines(blocks)).data == b"more\n"


@pytest.mark.parametrize("names", [("elsewhere",), ("a.1.log.bak", "b", "c"), ("app.log.1", "foreign")])
async def test_a_file_made_and_renamed_before_anybody_looked_is_ours_by_the_cookie_of_its_rename(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    log = tmp_path / "app.log"
    append(log, b"1\n")
    append(tmp_path / "foreign.0", b"not ours\n")
    tail = source(log, scan_seconds=0.5)
    async with aclosing(tail.blocks({})) as blocks, asyncio.timeout(30):
        assert (await lines(blocks)).data == b"1\n"
        pull = asyncio.ensure_future(lines(blocks))
        log.unlink()
        append(log, b"2\n")  # from here on the event loop has no chance to look
        last = log
        for name in names:
            last = last.rename(tmp_path / name)
        (tmp_path / "foreign.0").rename(tmp_path / "foreign.1")
        append(log, b"3\n")
        got = (await pull).data
        while got.count(b"\n") < 2:
            got += (await lines(blocks)).data
        assert sorted(got.split()) == [b"2", b"3"]


async def test_a_new_directory_under_a_glob_is_noticed_by_events(tmp_path: Path) -> None:
    for name in ("logs", "prepared"):
        (tmp_path / name).mkdir()
    append_to(tmp_path / "logs" / "1" / "x.log", b"1\n")
    append_to(tmp_path / "prepared" / "2" / "x.log", b"2\n")
    tail = source(tmp_path / "logs" / "*" / "x.log", scan_seconds=60)
    async with aclosing(tail.blocks({})) as blocks, asyncio.timeout(PATIENCE_SECONDS):
        assert (await lines(blocks)).data == b"1\n"
        pull = asyncio.ensure_future(lines(blocks))
        await asyncio.sleep(0.1)
        (tmp_path / "prepared" / "2").rename(tmp_path / "logs" / "2")
        assert (await pull).data == b"2\n"


def append_to(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    append(path, data)


LINE_BYTES = 16


class Writer(threading.Thread):
    """Writes numbered lines as fast as it can and rotates by renaming, like a program that rotates its own log."""

    def __init__(self, log: Path, seconds: float) -> None:
        super().__init__()
        self.log, self.seconds, self.written, self.rotations = log, seconds, 0, 0

    def run(self) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            with self.log.open("wb", buffering=0) as file:
                for _ in range(200):
                    file.write(b"".join(b'{"n":%09d}\n' % number for number in range(self.written, self.written + 500)))
                    self.written += 500
            for index in range(self.rotations, 0, -1):
                if (old := self.log.with_name(f"{self.log.name}.{index}")).exists():
                    old.rename(self.log.with_name(f"{self.log.name}.{index + 1}"))
            self.log.rename(self.log.with_name(f"{self.log.name}.1"))
            self.rotations += 1


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("restarts", [0, 3])
async def test_a_writer_at_full_speed_that_rotates_loses_and_repeats_nothing(
    tmp_path: Path, pattern: str, restarts: int
) -> None:
    append(tmp_path / "app.log", b"")
    writer = Writer(tmp_path / "app.log", 1.5)
    positions: dict[str, Position] = {}
    got: list[bytes] = []
    asyncio.get_running_loop().call_later(0.1, writer.start)  # files rotated before the first scan are not ours
    for life in range(restarts):
        await follow(source(tmp_path / pattern), positions, got, until=time.monotonic() + 0.2 + life / 10)
    await follow(source(tmp_path / pattern), positions, got, writer=writer)
    writer.join()
    assert writer.rotations > 3
    numbers = [int(line[5:-1]) for line in b"".join(got).splitlines()]
    steps = [pair for pair in pairwise([-1, *numbers, writer.written]) if pair[1] != pair[0] + 1]
    assert steps == []


async def follow(
    tail: FileTail,
    positions: dict[str, Position],
    got: list[bytes],
    *,
    until: float = math.inf,
    writer: Writer | None = None,
) -> None:
    """One life of a source: until a given time, or until everything written has arrived, or nothing arrives for 3 s."""
    async with aclosing(tail.blocks(dict(positions))) as blocks:
        pull = asyncio.ensure_future(anext(blocks))
        waited = 0
        while time.monotonic() < until and waited < 60:
            done, _ = await asyncio.wait({pull}, timeout=0.05)
            waited = 0 if done else waited + 1
            if done:
                commit(tail, pull.result(), positions, got)
                pull = asyncio.ensure_future(anext(blocks))
            elif (
                writer is not None
                and writer.ident
                and not writer.is_alive()
                and sum(map(len, got)) >= writer.written * LINE_BYTES
            ):
                break
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)


def commit(tail: FileTail, block: Block, positions: dict[str, Position], got: list[bytes]) -> None:
    """Like the pipeline: records and positions together, or neither."""
    got.append(block.data)
    marks = Portion([block]).positions()
    positions |= marks
    for key in tail.forgotten():
        positions.pop(key, None)
    tail.committed(marks)
