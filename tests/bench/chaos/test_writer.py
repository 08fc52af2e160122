"""What the writer says of its records is what is in its files: otherwise chaos would judge the product by a mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.writer import EDITED_FROM, HOLE_BYTES, Writer


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """A writer whose thread is not started: a test writes when it wants to."""
    return Writer(tmp_path / "a", "a", seed=1)


def numbers(path: Path) -> list[int]:
    return [json.loads(line.strip(b"\0"))["n"] for line in path.read_bytes().splitlines() if line.strip(b"\0")]


def files(writer: Writer) -> Iterator[Path]:
    return (path for path in sorted(writer.folder.iterdir()) if ".bak" not in path.name)


def test_a_running_writer_counts_what_it_wrote(writer: Writer) -> None:
    writer.start()
    while not writer.sent:
        pass
    writer.rotate()
    writer.stop()
    assert sorted(n for path in files(writer) for n in numbers(path)) == list(range(writer.sent))


def test_rotated_and_copied_files_hold_each_record_once_but_for_mere_copies(writer: Writer) -> None:
    writer._write(10)
    writer.rotate()
    writer._write(10)
    writer.copy(0, rotated_name=False)
    writer.copy_and_truncate(goes_on=False, between=0.0)
    writer._write(10)
    assert [numbers(path) for path in files(writer)] == [[*range(20, 30)], [*range(10)], [*range(10, 20)]]
    assert writer.may_be_lost == []


def test_what_is_written_between_copy_and_truncate_is_known_by_its_numbers(writer: Writer) -> None:
    writer._write(10)
    writer.copy_and_truncate(goes_on=False, between=0.1)
    writer._write(10)
    assert writer.may_be_lost == [range(10, 30)]
    assert sorted(n for path in files(writer) for n in numbers(path)) == [*range(10), *range(30, 40)]


def test_a_writer_that_keeps_its_offset_and_one_that_skips_leave_holes(writer: Writer) -> None:
    writer._write(10)
    size = writer._path.stat().st_size
    writer.copy_and_truncate(goes_on=True, between=0.0)
    writer._write(10)
    assert writer._path.read_bytes()[:size] == bytes(size)
    writer.make_hole(0.5)
    writer._write(10)
    assert writer._path.stat().st_size > HOLE_BYTES // 2
    assert writer._path.stat().st_blocks * 512 < HOLE_BYTES // 4
    assert numbers(writer._path) == [*range(10, 30)]


@pytest.mark.parametrize("at_end", [True, False])
def test_an_edit_changes_one_byte_and_no_number(writer: Writer, at_end: bool) -> None:
    writer._write(30)
    before = writer._path.read_bytes()
    writer.edit(0.3, at_end=at_end)
    after = writer._path.read_bytes()
    (changed,) = (at for at in range(len(after)) if after[at] != before[at])
    assert changed >= EDITED_FROM
    assert (changed > len(after) - 1024) or not at_end
    assert numbers(writer._path) == [*range(30)]


def test_only_a_file_that_is_known_is_copied_to_a_rotated_name(writer: Writer) -> None:
    for stored in (0, 100):
        writer._write(20)
        writer.copy(stored, rotated_name=True)
    assert sorted(path.name for path in writer.folder.iterdir()) == ["a.log", "a.log.2", "a.log.bak.1"]


def test_only_files_that_are_stored_are_deleted_and_the_file_is_made_anew(writer: Writer) -> None:
    writer._write(10)
    writer.copy(0, rotated_name=True)
    writer.rotate()
    writer._write(10)
    writer.rotate()
    writer._write(10)
    writer.recycle(stored=15)
    assert [path.name for path in files(writer)] == ["a.log", "a.log.3", "a.log.4"]
    writer._write(10)
    assert [numbers(path) for path in files(writer)] == [[*range(30, 40)], [*range(10, 20)], [*range(20, 30)]]


@pytest.mark.parametrize("leaves_empty", [True, False])
def test_a_directory_goes_away_and_returns_with_what_was_written_meanwhile(writer: Writer, leaves_empty: bool) -> None:
    writer._write(10)
    writer.unmount(leaves_empty=leaves_empty)
    assert writer.folder.exists() == leaves_empty
    writer._write(10)
    assert not leaves_empty or not any(writer.folder.iterdir())
    writer.mount()
    writer._write(10)
    assert numbers(writer.folder / "a.log") == [*range(30)]
