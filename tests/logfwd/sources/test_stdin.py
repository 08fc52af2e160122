"""Standard input from pipes, files and terminals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
import tty
from collections import Counter
from pathlib import Path

import pytest

from logfwd.intake.batcher import Portion
from logfwd.sources.position import Block
from logfwd.sources.settings import Multiline, StdinSource
from logfwd.sources.stdin import Stdin
from tests.support.patience import PATIENCE_SECONDS


async def everything(source: Stdin) -> list[Block]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [block async for block in source.blocks({})]


def feed(fd: int, *pieces: bytes) -> threading.Thread:
    def write() -> None:
        for piece in pieces:
            os.write(fd, piece)
        os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


async def test_a_pipe_gives_whole_lines_and_the_unfinished_last_one() -> None:
    reader, writer = os.pipe()
    source = Stdin(max_record_bytes=1000, fd=reader)
    thread = feed(writer, b"one\ntw", b"o\n", b"thr", b"ee")
    blocks = await everything(source)
    thread.join()
    os.close(reader)
    assert b"".join(block.data for block in blocks) == b"one\ntwo\nthree\n"
    assert all(block.data.endswith(b"\n") and block.key == "stdin" for block in blocks)
    assert [block.start for block in blocks] == [0, *(block.end for block in blocks[:-1])]
    assert blocks[-1].end == len(b"one\ntwo\nthree")


@pytest.mark.parametrize("text", [b"", b"one\n", b"one\ntwo", b"\n" * 5, b"x" * 250 + b"\nshort\n"])
async def test_a_file_gives_what_it_holds(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "input"
    path.write_bytes(text)
    with path.open("rb") as file:
        source = Stdin(max_record_bytes=1000, block_bytes=64, fd=file.fileno())
        blocks = await everything(source)
    expected = text if not text or text.endswith(b"\n") else text + b"\n"
    assert b"".join(block.data for block in blocks) == expected


async def test_the_null_device_ends_at_once() -> None:
    with Path(os.devnull).open("rb") as file:
        assert await everything(Stdin(max_record_bytes=1000, fd=file.fileno())) == []


async def test_a_terminal_gives_lines_and_ends_when_it_hangs_up() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.write(master, b"one\ntwo\n")
    source = Stdin(max_record_bytes=1000, fd=slave)
    blocks = source.blocks({})
    async with asyncio.timeout(PATIENCE_SECONDS):
        got = (await anext(blocks)).data
        os.close(master)
        async for block in blocks:
            got += block.data
    os.close(slave)
    assert got == b"one\ntwo\n"


async def test_a_line_longer_than_a_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"a\n" + b"x" * 950 + b"\nb\n")
    with path.open("rb") as file:
        blocks = await everything(Stdin(max_record_bytes=300, block_bytes=128, fd=file.fileno()))
    assert b"".join(block.data for block in blocks).splitlines() == [b"a", b"x" * 950, b"b"]
    assert blocks[-1].end == 955


async def test_a_line_without_end_is_cut_at_whole_characters_and_that_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.sources.stdin.MAX_LINE_BYTES", 400)
    path, counted = tmp_path / "input", Counter[str]()
    path.write_text("x" + "é" * 500 + "\nb\n", encoding="utf-8")
    with path.open("rb") as file:
        source = Stdin(max_record_bytes=300, block_bytes=128, fd=file.fileno())
        source.count = lambda state, lines: counted.update({state: lines})
        blocks = await everything(source)
    *pieces, last = b"".join(block.data for block in blocks).decode().splitlines()
    assert ("".join(pieces), last) == ("x" + "é" * 500, "b")
    assert [len(piece.encode()) for piece in pieces] == [399, 400, 202]
    assert counted == {"too_long": 2}


async def test_waiting_for_input_can_be_cancelled_and_goes_on_later() -> None:
    reader, writer = os.pipe()
    source = Stdin(max_record_bytes=1000, fd=reader)
    pull = asyncio.ensure_future(anext(source.blocks({})))
    await asyncio.sleep(0)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    thread = feed(writer, b"one\n")
    assert [block.data for block in await everything(source)] == [b"one\n"]
    thread.join()
    os.close(reader)


def test_a_program_can_end_while_it_waits_for_input() -> None:
    program = """
import asyncio
import json
from logfwd.sources.stdin import Stdin
async def main():
    pull = asyncio.ensure_future(anext(Stdin(max_record_bytes=1000).blocks({})))
    await asyncio.sleep(0)
    pull.cancel()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        assert child.wait(timeout=PATIENCE_SECONDS) == 0


async def text_of(
    data: bytes, encoding: str = "utf-8", *, chunk: int = 3, max_record_bytes: int = 1000
) -> list[dict[str, object]]:
    reader, writer = os.pipe()
    settings = StdinSource(format="text", encoding=encoding)
    source = Stdin(max_record_bytes=max_record_bytes, block_bytes=chunk, fd=reader, settings=settings)
    thread = feed(writer, data)
    blocks = await everything(source)
    thread.join()
    os.close(reader)
    for block in blocks:
        source.committed(Portion([block]).positions())
    assert source.lag_bytes() == 0
    return [json.loads(line) for block in blocks for line in block.data.splitlines()]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "shift_jis"])
async def test_text_in_any_encoding_is_cut_into_lines(encoding: str, chunk: int) -> None:
    lines = ["日本", "", "second", "\u0a0a\u010a" if encoding.startswith("utf") else "x", "the end"]
    records = await text_of("\n".join(lines).encode(encoding), encoding, chunk=chunk)
    assert [record["message"] for record in records] == [line for line in lines if line]


async def test_a_long_line_of_text_comes_in_parts_with_one_id() -> None:
    line = "é" * 2000
    records = await text_of(f"{line}\nshort\n".encode(), chunk=500, max_record_bytes=301)
    parts, short = records[:-1], records[-1]
    assert "".join(str(part["message"]) for part in parts) == line
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert len({part["line_id"] for part in parts}) == 1
    assert {part["parts"] for part in parts} == {len(parts)}
    assert short == {"message": "short"}


async def test_a_byte_order_mark_is_skipped() -> None:
    reader, writer = os.pipe()
    source = Stdin(max_record_bytes=1000, block_bytes=2, fd=reader)
    thread = feed(writer, b'\xef\xbb\xbf{"a":1}\n')
    blocks = await everything(source)
    thread.join()
    os.close(reader)
    assert b"".join(block.data for block in blocks) == b'{"a":1}\n'
    assert (blocks[0].start, blocks[-1].end) == (3, 11)


async def test_lines_of_a_record_are_joined_and_it_is_whole_after_wait_or_at_the_end() -> None:
    reader, writer = os.pipe()
    settings = StdinSource(format="text", multiline=Multiline(start="^2026", wait_seconds=0.05))
    source = Stdin(max_record_bytes=1000, fd=reader, settings=settings)
    os.write(writer, b"2026 first\n  at a\n")
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(source.blocks({})) as blocks:
        before, first = await anext(blocks), await anext(blocks)
        source.committed(Portion([before]).positions())
        assert (before.data, first.data) == (b"", b'{"message":"2026 first\\n  at a"}\n')
    os.write(writer, b"2026 second\n  at b")
    os.close(writer)
    async with asyncio.timeout(PATIENCE_SECONDS):
        rest = [block async for block in source.blocks(Portion([before]).positions())]
    os.close(reader)
    assert rest[0] == first, "it was not committed: the next pipeline gets it again"
    assert rest[-1].data == b'{"message":"2026 second\\n  at b"}\n'
    for block in rest:
        source.committed(Portion([block]).positions())
    assert source.lag_bytes() == 0


async def test_container_lines_are_joined() -> None:
    reader, writer = os.pipe()
    source = Stdin(max_record_bytes=1000, fd=reader, settings=StdinSource(format="cri"))
    thread = feed(writer, b"2026-01-31T10:00:00Z stdout P one \n2026-01-31T10:00:01Z stdout F two\n")
    blocks = await everything(source)
    thread.join()
    os.close(reader)
    (record,) = [json.loads(line) for block in blocks for line in block.data.splitlines()]
    assert record == {"message": "one two", "time": "2026-01-31T10:00:00Z", "stream": "stdout"}
