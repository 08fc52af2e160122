"""`logfwd positions`: listed, set and removed by a real spool, and obeyed by a real follower."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfwd import state_dir
from logfwd.cli import main
from logfwd.sources.file.source import marks
from logfwd.sources.position import FILE, Position
from logfwd.spool.notes import Notes
from logfwd.spool.store import Spool
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.support.tls import Parties


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An installation that has read ten lines of each of two files."""
    Parties(tmp_path / "pki")
    path = tmp_path / "logfwd.toml"
    path.write_text(
        'state_dir = "state"\nreceivers = ["localhost:1"]\n'
        '[tls]\ncertificate = "pki/forwarder.pem"\nkey = "pki/forwarder.key"\nca = "pki/ca.pem"\n'
    )
    (tmp_path / "streams.d").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "streams.d" / "s.toml").write_text(
        f'name = "s"\n[source]\ntype = "file"\npaths = ["{tmp_path}/*.log"]\n'
    )
    for name in ("a", "b"):
        append(tmp_path / f"{name}.log", numbered(0, 10))
    reader = Reader(tmp_path / "*.log")
    reader.turn()
    reader.follower.close()
    asyncio.run(store(tmp_path / "state" / "s.spool", reader))
    return path


async def store(path: Path, reader: Reader) -> None:
    async with Spool(path) as spool:
        notes = Notes()
        found = reader.positions | reader.scans
        notes.put_positions({key: Position(FILE, mark.encode()) for key, mark in found.items()}, ())
        await spool.commit(notes)


def run(config: Path, command: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["positions", command, "s", *arguments, "-c", str(config)])
    return result.exit_code, result.output


def read_now(config: Path) -> list[bytes]:
    """What a forwarder would read at its next start."""

    async def positions() -> dict[str, Position]:
        async with Spool(config.parent / "state" / "s.spool") as spool:
            return dict(spool.positions)

    reader = Reader(config.parent / "*.log")
    reader.positions = marks(asyncio.run(positions()))
    reader.restart()
    lines = reader.turn()
    reader.follower.close()
    return lines


def test_positions_are_listed_with_what_is_unread(config: Path) -> None:
    append(config.parent / "a.log", b"more\n")
    (config.parent / "b.log").unlink()
    code, output = run(config, "list", "--json")
    found = json.loads(output)
    assert code == 0
    assert [(Path(each["path"]).name, each["offset"], each["size"], each["unread"]) for each in found] == [
        ("a.log", 610, 615, 5),
        ("b.log", 610, None, None),
    ]
    assert [line.split()[1:4] for line in run(config, "list")[1].splitlines()] == [
        ["OFFSET", "SIZE", "UNREAD"],
        ["610", "615", "5"],
        ["610", "-", "-"],
    ]


@pytest.mark.parametrize(("offset", "lines"), [("start", 11), ("122", 9), ("610", 1), ("end", 0)])
def test_a_position_that_is_set_is_where_reading_goes_on(config: Path, offset: str, lines: int) -> None:
    log = config.parent / "a.log"
    append(log, numbered(10, 11))
    code, output = run(config, "set", str(log), offset)
    assert (code, "before 610" in output) == (0, True)
    assert read_now(config) == numbered(11 - lines, 11).splitlines()


def test_a_position_may_be_set_for_a_file_that_was_never_read(config: Path) -> None:
    log = config.parent / "c.log"
    append(log, numbered(20, 30))
    assert run(config, "set", str(log), "61")[0] == 0
    assert read_now(config) == numbered(21, 30).splitlines()


def test_an_offset_within_a_line_is_refused_with_those_around_it(config: Path) -> None:
    code, output = run(config, "set", str(config.parent / "a.log"), "100")
    assert code == 2
    assert "begins at 61; the next one at 122" in " ".join(output.split())
    assert run(config, "set", str(config.parent / "a.log"), "9999")[0] == 2


def test_a_position_that_is_removed_makes_its_file_a_new_one(config: Path) -> None:
    assert run(config, "rm", str(config.parent / "a.log"))[0] == 0
    assert read_now(config) == numbered(0, 10).splitlines()
    code, output = run(config, "rm", "nowhere.log")
    assert (code, "no position for nowhere.log" in output) == (1, True)


def test_while_a_forwarder_runs_positions_are_only_listed(config: Path) -> None:
    with state_dir.lock(config.parent / "state"):
        assert run(config, "list")[0] == 0
        for command in (("rm", str(config.parent / "a.log")), ("set", str(config.parent / "a.log"), "end")):
            code, output = run(config, *command)
            assert (code, "stop the forwarder" in output) == (1, True)
    assert read_now(config) == []
