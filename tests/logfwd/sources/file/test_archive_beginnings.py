"""Compressed copies of the beginning of a file that was read beyond it: nothing of them is read again."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_archives import turns
from tests.logfwd.sources.file.test_rotation import expected

SHORT, LONG = 30, 200
"""Lines: so few that no windows tell an edited file from another one, and so many that they do."""

lengths = pytest.mark.parametrize("lines", [SHORT, LONG])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@lengths
def test_the_compressed_copy_of_a_file_that_was_read_on_before_it_was_emptied_repeats_nothing(
    log: Path, lines: int
) -> None:
    reader = Reader(log, compressed="read")
    append(log, numbered(0, lines))
    reader.turn()
    Path(f"{log}.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    append(log, numbered(lines, lines + 10))
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(lines + 10, lines + 20))
    turns(reader)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, lines + 20))


@lengths
def test_the_compressed_copy_of_a_deleted_file_that_was_read_on_repeats_nothing(log: Path, lines: int) -> None:
    reader = Reader(log, compressed="read")
    append(log, numbered(0, lines))
    turns(reader, 3)
    moved = log.rename(f"{log}.1")
    packed = gzip.compress(moved.read_bytes())
    append(moved, numbered(lines, lines + 10))  # its writer has not let go of it
    turns(reader, 2)
    Path(f"{log}.1.gz").write_bytes(packed)
    moved.unlink()
    turns(reader)
    append(log, numbered(lines + 10, lines + 20))
    turns(reader)
    assert reader.lines == expected((0, lines + 20))


def test_a_stopped_forwarder_knows_the_compressed_beginning_of_a_file_by_its_windows(log: Path) -> None:
    reader = Reader(log, compressed="read")
    append(log, numbered(0, LONG))
    reader.turn()
    packed = gzip.compress(log.read_bytes())
    append(log, numbered(LONG, LONG + 10))
    reader.turn()
    reader.follower.close()
    log.unlink()
    Path(f"{log}.1.gz").write_bytes(packed)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, LONG + 10))


@pytest.mark.parametrize("end", ["emptied", "deleted"])
def test_a_compressed_file_that_only_begins_alike_and_is_longer_is_another_one(log: Path, end: str) -> None:
    """Its first 1 KiB is that of the file which was read; the rest, and so the bytes before the position, is not."""
    reader = Reader(log, compressed="read")
    append(log, numbered(0, 30))
    turns(reader, 2)
    other = gzip.compress(numbered(0, 20) + numbered(500, 530))
    if end == "emptied":
        os.truncate(log, 0)
    Path(f"{log}.1.gz").write_bytes(other)
    if end == "deleted":
        log.unlink()
    turns(reader)
    assert sorted(reader.lines) == sorted(expected((0, 30), (0, 20), (500, 530)))
