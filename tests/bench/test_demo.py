from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.demo import MARK, demo, make_room, streams_of
from bench.lab.processes import StartFailed
from streams.security.modes import MODES


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


def test_every_mode_has_a_stream_and_all_but_the_first_are_its_twins() -> None:
    assert streams_of(["classical", "hybrid"]) == {"http": "classical", "pq-stream": "hybrid"}
    assert streams_of(["hybrid", "kemtls"]) == {"http": "hybrid", "http-kemtls": "kemtls"}
    assert sorted(streams_of(list(MODES)).values()) == sorted(MODES)


def test_modes_that_do_not_exist_are_told_with_those_that_do() -> None:
    result = CliRunner().invoke(demo, ["--modes", "hybrid,kem"])
    assert (result.exit_code, "unknown: kem; write all, or some of " in result.output) == (2, True)
