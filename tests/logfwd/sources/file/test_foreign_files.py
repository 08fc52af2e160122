"""Files that `paths` does not match are left alone, whatever their names have in common with configured ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from logfwd.sources.position import Mark
from logfwd.sources.settings import FileSource
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


def lines(name: str, count: int = 3) -> bytes:
    return b"".join(b"%s %d\n" % (name.encode(), number) for number in range(count))


def read_next_to(
    folder: Path, pattern: str, own: str, neighbours: tuple[str, ...], exclude: tuple[str, ...] = ()
) -> set[bytes]:
    """The names whose lines were read: neighbours appear while running, while stopped, and before another start."""
    reader = Reader(folder / pattern, exclude=exclude)
    append(folder / own, lines(own))
    reader.turn()
    append(folder / neighbours[0], lines(neighbours[0]))
    reader.turn()
    reader.restart()
    for name in neighbours:
        append(folder / name, lines(name))
    append(folder / own, lines(own))
    for _ in range(3):
        reader.turn()
    reader.restart()
    reader.turn()
    assert reader.lines.count(f"{own} 0".encode()) == 2
    return {line.split()[0] for line in reader.lines}


@pytest.mark.parametrize(
    ("pattern", "own", "neighbours"),
    [
        ("worker-1", "worker-1", ("worker-2", "worker-3", "worker-10")),
        ("job.1", "job.1", ("job.2", "job")),
        ("app-20260131", "app-20260131", ("app-20260201", "app-2026-02-01", "app")),
        ("worker-[0-9]", "worker-1", ("worker-10", "worker", "worker-1x")),
        ("worker", "worker", ("worker_1", "worker-1000", "worker2", "worker-1-tmp")),
        ("*.log", "app.log", ("app.1", "other.2", "app-1")),
        ("app.old", "app.old", ("app", "app.1")),
    ],
)
def test_neighbours_with_numbers_and_dates_in_their_names_are_not_read(
    tmp_path: Path, pattern: str, own: str, neighbours: tuple[str, ...]
) -> None:
    assert read_next_to(tmp_path, pattern, own, neighbours) == {own.encode()}


def test_excluded_files_are_not_read_and_do_not_count_as_names_of_rotated_files(tmp_path: Path) -> None:
    assert read_next_to(tmp_path, "app*.log", "app.log", ("app.log.1", "app-2.log"), exclude=("*-2.log", "*.1")) == {
        b"app.log"
    }
    assert read_next_to(tmp_path, "x*", "x-1", ("x",), exclude=("x",)) == {b"x-1"}


def test_a_number_in_the_name_of_a_links_target_is_part_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("worker-1")
    append(tmp_path / "worker-1", b"")
    assert read_next_to(tmp_path, "link", "worker-1", ("worker-2", "worker")) == {b"worker-1"}


@pytest.mark.parametrize("ending", [".1", "-1", "-20260131", ".old"])
@pytest.mark.parametrize("pattern", ["worker-1", "worker-[0-9]"])
def test_unseen_rotations_of_a_name_with_a_number_are_read(tmp_path: Path, pattern: str, ending: str) -> None:
    log = tmp_path / "worker-1"
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 10))
    reader.turn()
    reader.restart()
    log.rename(tmp_path / "moved")
    append(log, numbered(10, 20))
    log.rename(tmp_path / f"worker-1{ending}")
    append(log, numbered(20, 30))
    append(tmp_path / "worker-2x", numbered(90, 95))
    reader.turn()
    assert reader.lines == numbered(0, 30).splitlines()


@pytest.mark.parametrize("copied", [False, True])
def test_a_stored_position_with_a_shortened_name_does_not_bring_the_neighbours_in(tmp_path: Path, copied: bool) -> None:
    log = tmp_path / "worker-1"
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    ((key, mark),) = reader.positions.items()
    detail = msgspec.msgpack.decode(mark.detail)
    detail[1] = bytes(tmp_path / "worker")
    reader.positions[key] = Mark(mark.offset, mark.tail_bytes, mark.tail_hash, msgspec.msgpack.encode(detail))
    reader.restart()
    append(tmp_path / "worker-2", numbered(90, 95))
    append(log, numbered(10, 20))
    if copied:
        shutil.copy(log, tmp_path / "worker-1.1")
        os.truncate(log, 0)
    else:
        log.rename(tmp_path / "worker-1.1")
    append(log, numbered(20, 30))
    reader.turn()
    assert reader.lines == numbered(0, 30).splitlines()


def test_a_position_of_a_file_that_is_no_longer_configured_does_not_bring_its_rotations_in(tmp_path: Path) -> None:
    log = tmp_path / "worker-1"
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    reader.settings = msgspec.structs.replace(reader.settings, paths=(str(tmp_path / "other"),))
    reader.restart()
    append(tmp_path / "worker-1.1", numbered(90, 95))
    append(tmp_path / "other", numbered(10, 20))
    reader.turn()
    assert reader.lines == numbered(0, 20).splitlines()


def source(*paths: Path, exclude: tuple[str, ...] = ()) -> FileSource:
    return FileSource(paths=tuple(map(str, paths)), exclude=exclude)


@pytest.mark.parametrize("pattern", ["app-1", "app-[0-9]"])
def test_a_file_that_only_another_stream_reads_is_not_a_rotation(tmp_path: Path, pattern: str) -> None:
    append(tmp_path / "app", numbered(0, 5))
    reader = Reader(tmp_path / "app")
    reader.turn()
    reader.others = (source(tmp_path / pattern),)  # by a reload
    append(tmp_path / "app-1", numbered(90, 95))
    reader.turn()
    reader.restart()
    append(tmp_path / "app-1", numbered(95, 99))
    append(tmp_path / "app", numbered(5, 10))
    reader.turn()
    assert reader.lines == numbered(0, 10).splitlines()


@pytest.mark.parametrize(
    "other", [{"paths": ("app*",)}, {"paths": ("app-1", "app")}, {"paths": ("app-*",), "exclude": ("app-1",)}]
)
def test_another_stream_that_reads_the_whole_family_does_not_take_its_rotations_away(
    tmp_path: Path, other: dict[str, tuple[str, ...]]
) -> None:
    paths = tuple(tmp_path / path for path in other["paths"])
    reader = Reader(tmp_path / "app", others=(source(*paths, exclude=other.get("exclude", ())),))
    append(tmp_path / "app", numbered(0, 10))
    reader.turn()
    (tmp_path / "app").rename(tmp_path / "moved")
    append(tmp_path / "app-1", numbered(10, 20))
    append(tmp_path / "app", numbered(20, 30))
    reader.turn()
    assert reader.lines == numbered(0, 30).splitlines()


def test_a_resumed_file_stores_its_whole_name(tmp_path: Path) -> None:
    log = tmp_path / "worker-1"
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    ((key, mark),) = reader.positions.items()
    detail = msgspec.msgpack.decode(mark.detail)
    detail[1] = bytes(tmp_path / "worker")
    reader.positions[key] = Mark(mark.offset, mark.tail_bytes, mark.tail_hash, msgspec.msgpack.encode(detail))
    reader.restart()
    append(log, numbered(10, 20))
    reader.turn()
    assert msgspec.msgpack.decode(reader.positions[key].detail)[1] == bytes(log)
