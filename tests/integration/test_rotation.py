"""Files rotated in every way while they are written to at full speed: every line stored once, in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from logfwd.sources.settings import FileSource
from tests.support.installation import Installation, acknowledged, eventually, forwarding, running
from tests.support.patience import PATIENCE_SECONDS

LINES = 60_000
PER_FILE = 9_000


def line(number: int) -> str:
    return f'{{"n":{number},"text":"{"x" * (number % 90)}"}}'


class Writer:
    """Writes numbered lines as fast as it can and rotates; reopens the path after each rotation.

    Between the halves of a file it waits until the forwarder has begun to read it, because a file that is created and
    deleted between two scans is never handed over.
    """

    def __init__(self, path: Path, rotate: Callable[[Path, int], None], read: Callable[[], int]) -> None:
        self.path, self._rotate, self._read = path, rotate, read

    def run(self) -> None:
        number = 0
        for generation in range(-(-LINES // PER_FILE)):
            if generation:
                self._rotate(self.path, generation)
            with self.path.open("a") as out:
                for line_of_file in range(min(PER_FILE, LINES - number)):
                    if line_of_file == PER_FILE // 2:
                        out.flush()
                        self.wait_until_read(number - line_of_file + 1)
                    out.write(line(number) + "\n")
                    number += 1

    def wait_until_read(self, records: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read() < records and time.monotonic() < deadline:
            time.sleep(0.002)


def rename_and_create(path: Path, generation: int) -> None:
    path.rename(path.with_name(f"{path.name}.{generation}"))


def delete_and_make_again(path: Path, generation: int) -> None:
    path.unlink()


class CopyAndTruncate:
    """Nothing is written between the copy and the truncation here: it would be lost to every reader."""

    writer: Writer

    def __call__(self, path: Path, generation: int) -> None:
        self.writer.wait_until_read(generation * PER_FILE)
        shutil.copy(path, path.with_name(f"{path.name}.{generation}"))
        os.truncate(path, 0)


@pytest.mark.parametrize(
    "rotate", [rename_and_create, CopyAndTruncate(), delete_and_make_again], ids=["rename", "copytruncate", "delete"]
)
async def test_every_line_is_stored_once_and_in_order(tmp_path: Path, rotate: Callable[[Path, int], None]) -> None:
    installation = Installation(tmp_path)
    source = FileSource(paths=(str(installation.source),), scan_seconds=0.05, rotated_wait_seconds=0.5)
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        async with forwarding(config) as forwarder:
            writer = Writer(installation.source, rotate, lambda: acknowledged(forwarder))
            if isinstance(rotate, CopyAndTruncate):
                rotate.writer = writer
            await asyncio.to_thread(writer.run)
            await eventually(lambda: acknowledged(forwarder) >= LINES)
            await asyncio.sleep(0.5)
            assert acknowledged(forwarder) == LINES
    assert installation.stored() == [line(number) for number in range(LINES)]


async def test_restarts_in_the_middle_of_rotations_lose_and_repeat_nothing(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    paths = (f"{installation.source}*",)
    source = FileSource(paths=paths, scan_seconds=0.05, rotated_wait_seconds=0.5)
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        seen = 0
        writer = Writer(installation.source, rename_and_create, lambda: seen)
        writing = asyncio.create_task(asyncio.to_thread(writer.run))
        while not writing.done():
            async with forwarding(config) as forwarder:
                await asyncio.sleep(0.1)
                seen = acknowledged(forwarder)
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) >= LINES)
    assert sorted(installation.stored()) == sorted(line(number) for number in range(LINES))


async def test_a_restart_reads_no_file_whose_name_has_another_number(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    own, neighbours = tmp_path / "worker-1", [tmp_path / "worker-2", tmp_path / "worker-3"]
    source = FileSource(paths=(str(own),), scan_seconds=0.05)
    own.write_text("".join(line(number) + "\n" for number in range(100)))
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) >= 100)
        for neighbour in neighbours:
            neighbour.write_text('{"not":"ours"}\n' * 500)
        with own.open("a") as out:
            out.writelines(line(number) + "\n" for number in range(100, 110))
        async with forwarding(config) as forwarder:
            await eventually(lambda: len(installation.stored()) >= 110)
            await asyncio.sleep(0.5)
    assert installation.stored() == [line(number) for number in range(110)]


async def test_new_files_like_deleted_ones_are_all_read(tmp_path: Path) -> None:
    """Job results, all alike, some with inodes of earlier ones. Most are closed when they are deleted."""
    installation = Installation(tmp_path)
    source = FileSource(paths=(str(tmp_path / "jobs" / "*" / "x.json"),), scan_seconds=0.05, max_open_files=8)
    written = 0
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        for life in range(2):
            async with forwarding(config) as forwarder:
                for round_ in range(3):
                    for number in range(60):
                        folder = tmp_path / "jobs" / f"{life}-{round_}-{number}"
                        folder.mkdir(parents=True)
                        (folder / "x.json").write_text('{"job":"done"}\n')
                    written += 60
                    await eventually(lambda: acknowledged(forwarder) >= written)  # noqa: B023
                    shutil.rmtree(tmp_path / "jobs")
        async with forwarding(config):
            await asyncio.sleep(0.5)
    assert len(installation.stored()) == written


async def test_two_streams_over_neighbouring_names_read_each_their_own(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    names = {"a": tmp_path / "app", "b": tmp_path / "app-1"}
    streams = [
        installation.stream(name=name, source=FileSource(paths=(str(path),), scan_seconds=0.05))
        for name, path in names.items()
    ]

    def write(first: int) -> None:
        for name, path in names.items():
            with path.open("a") as out:
                out.writelines(f'{{"{name}":{number}}}\n' for number in range(first, first + 50))

    write(0)
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, *streams)
        for stored in (50, 100):
            async with forwarding(config) as forwarder:
                await eventually(lambda: all(acknowledged(forwarder, name) >= stored for name in names))  # noqa: B023
                await asyncio.sleep(0.3)
            write(50)
    for name in names:
        assert installation.stored(name)[:100] == [f'{{"{name}":{number}}}' for number in range(100)]
        assert not any(f'"{name}"' not in record for record in installation.stored(name))
