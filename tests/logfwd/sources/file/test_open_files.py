"""Few of many files are open: which are closed to make room for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


@pytest.mark.parametrize(("limit", "left"), [(2, 2), (32, 31)])
def test_a_sixteenth_of_the_open_files_is_closed_at_a_time(tmp_path: Path, limit: int, left: int) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=limit)
    for number in range(limit):
        append(tmp_path / f"{number}.log", numbered(number, number + 1))
    reader.turn()
    assert reader.open_files == limit
    append(tmp_path / "new.log", numbered(limit, limit + 1))
    reader.turn()
    assert reader.open_files == left


def test_only_one_file_is_closed_if_all_have_something_to_read(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=32)
    for number in range(32):
        append(tmp_path / f"{number:02}.log", numbered(number, number + 1))
    reader.turn()
    for number in range(32):
        append(tmp_path / f"{number:02}.log", numbered(number, number + 1))
    append(tmp_path / "new.log", numbered(32, 33))
    reader.scan()
    assert reader.open_files == 32
