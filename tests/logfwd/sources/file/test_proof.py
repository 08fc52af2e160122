"""How much of a file must be equal to what was read for it to be the same, or a copy; which of two positions counts."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from logfwd.sources.file.identity import place_at
from logfwd.sources.position import Mark
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_which import expected, settled

LINE_BYTES = 61


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def change_first_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"9")


def two_positions(reader: Reader, log: Path) -> None:
    """One file with two stored positions, after 100 lines and after 150: the later one was stored first."""
    append(log, numbered(0, 100))
    reader.turn()
    earlier: dict[str, Mark] = {f"x{key}": mark for key, mark in reader.positions.items()}
    append(log, numbered(100, 150))
    reader.turn()
    reader.positions |= earlier
    reader.follower.close()


def test_a_place_does_not_fit_a_file_with_another_head(log: Path) -> None:
    append(log, numbered(0, 50))
    with log.open("rb") as file:
        place = place_at(file.fileno(), 50 * LINE_BYTES)
        for is_equal in (True, False):
            evidence = place.evidence(file.fileno())
            assert (evidence.head_fits, evidence.tail_fits) == (is_equal, True)
            assert place.fits(file.fileno()) is is_equal
            change_first_byte(log)


def test_a_file_with_another_head_is_another_one_though_the_bytes_before_the_position_are_equal(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 50))
    reader.turn()
    change_first_byte(log)
    reader.restart()
    settled(reader)
    assert len(reader.lines) == 100
    assert reader.file_bytes["read_again"] == 50 * LINE_BYTES


def test_a_closed_file_that_got_another_head_is_not_gone_on_with(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=1)
    append(log, numbered(0, 50))
    reader.turn()
    append(tmp_path / "other.log", numbered(500, 501))
    reader.turn()
    change_first_byte(log)
    append(log, numbered(50, 60))
    settled(reader)
    assert len(reader.lines) == 50 + 1 + 60
    assert reader.file_bytes["read_again"] == 50 * LINE_BYTES


def test_of_two_positions_of_one_file_the_later_one_counts(log: Path) -> None:
    reader = Reader(log)
    two_positions(reader, log)
    append(log, numbered(150, 160))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 160))


def test_of_two_positions_that_a_restored_file_fits_the_later_one_counts(log: Path) -> None:
    reader = Reader(log)
    two_positions(reader, log)
    append(log, numbered(150, 160))
    shutil.copyfile(log, log.with_name("copy"))
    log.with_name("copy").rename(log)
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 160))


def test_of_two_positions_that_a_compressed_file_fits_the_later_one_counts(log: Path) -> None:
    reader = Reader(log)
    two_positions(reader, log)
    append(log, numbered(150, 160))
    log.with_name("app.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    reader.restart()
    settled(reader)
    settled(reader)
    assert reader.lines == expected((0, 160))


def test_a_link_that_rotated_matches_is_not_read(tmp_path: Path, log: Path) -> None:
    (tmp_path / "old").mkdir()
    reader = Reader(log, rotated=(str(tmp_path / "old" / "*"),))
    append(log, numbered(0, 10))
    reader.turn()
    append(tmp_path / "foreign", numbered(500, 510))
    (tmp_path / "old" / "app.log.1").symlink_to(tmp_path / "foreign")
    settled(reader)
    assert reader.lines == expected((0, 10))


def test_a_short_rotated_file_with_another_head_is_no_copy_of_an_emptied_one(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 30))
    reader.turn()
    os.truncate(log, 0)
    append(log.with_name("app.log.1"), numbered(500, 510))
    settled(reader)
    assert sorted(reader.lines) == expected((0, 30), (500, 510))


def test_one_kilobyte_alone_makes_a_shorter_file_no_copy_of_an_emptied_one(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*.log")
    append(log, numbered(0, 100))
    reader.turn()
    os.truncate(log, 0)
    append(tmp_path / "other.log", numbered(0, 17) + numbered(500, 502))
    settled(reader)
    assert sorted(reader.lines) == sorted(expected((0, 100), (0, 17), (500, 502)))


def test_fewer_than_64_bytes_prove_nothing(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*.log")
    append(log, b"hello\n")
    reader.turn()
    os.truncate(log, 0)
    append(tmp_path / "other.log", b"hello\nworld\n")
    settled(reader)
    assert reader.lines == [b"hello", b"hello", b"world"]


@pytest.mark.parametrize(("lines", "more", "is_moved"), [(10, 5, False), (10, 0, True), (20, 5, True)])
def test_a_file_under_another_name_goes_on_if_one_kilobyte_is_equal_or_all_of_it(
    tmp_path: Path, log: Path, lines: int, more: int, is_moved: bool
) -> None:
    reader = Reader(tmp_path / "*.log")
    append(log, numbered(0, lines))
    reader.turn()
    reader.follower.close()
    append(tmp_path / "other.log", log.read_bytes() + numbered(lines, lines + more))
    log.unlink()
    reader.restart()
    settled(reader)
    assert len(reader.lines) == lines + more + (0 if is_moved else lines)
