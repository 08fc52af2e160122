from __future__ import annotations

from pathlib import Path

import pytest

from bench.demo import MARK, make_room
from bench.lab.processes import StartFailed


def test_a_demo_deletes_what_an_earlier_demo_left(tmp_path: Path) -> None:
    directory = tmp_path / "some" / "demo"
    make_room(directory)
    (directory / "state").mkdir()
    (directory / "state" / "http.spool").touch()
    make_room(directory)
    assert [path.name for path in directory.iterdir()] == [MARK]


def test_a_demo_deletes_nothing_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StartFailed, match="not from a demo"):
        make_room(tmp_path)
    with pytest.raises(StartFailed, match="not from a demo"):
        make_room(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_demo_takes_an_empty_directory(tmp_path: Path) -> None:
    make_room(tmp_path)
    assert (tmp_path / MARK).exists()
