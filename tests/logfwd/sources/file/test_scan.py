"""Listing files: which configured name a rotated file belongs to, and which directories are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from logfwd.sources.file import scan
from logfwd.sources.file.scan import Finder
from logfwd.sources.settings import FileSource
from tests.logfwd.sources.file.follow_harness import Reader, append


def families(folder: Path, pattern: str, *names: str, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    """The family of each file that a glob leads to, both without the directory."""
    for name in names:
        (folder / name).touch()
    finder = Finder(FileSource(paths=(str(folder / pattern),), exclude=exclude))
    return {Path(found.path).name: Path(found.family).name for found in finder.configured().values()}


def test_a_rotated_file_belongs_to_the_longest_configured_name_that_exists(tmp_path: Path) -> None:
    assert families(tmp_path, "app*", "app", "app-20260131", "app-20260131.1", "app.1") == {
        "app": "app",
        "app-20260131": "app",
        "app-20260131.1": "app-20260131",
        "app.1": "app",
    }


def test_rotated_files_whose_live_file_is_away_still_belong_together(tmp_path: Path) -> None:
    assert families(tmp_path, "access.log*", "access.log.2026-01-31", "access.log.2026-01-30") == {
        "access.log.2026-01-31": "access.log",
        "access.log.2026-01-30": "access.log",
    }


def test_a_name_that_no_glob_leads_to_is_not_a_family(tmp_path: Path) -> None:
    assert families(tmp_path, "worker-[0-9]", "worker", "worker-1") == {"worker-1": "worker-1"}
    assert families(tmp_path, "x*", "x", "x-1", exclude=("x",)) == {"x-1": "x-1"}


def test_directories_that_are_gone_are_no_longer_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path / "*" / "x.log")
    for round_ in range(3):
        folder = tmp_path / f"{round_}"
        folder.mkdir()
        append(folder / "x.log", b"line\n")
        reader.turn()
        (folder / "x.log").unlink()
        folder.rmdir()
        for _ in range(8):
            reader.turn()
    looked_at: list[str] = []

    def changed_ns(directory: str) -> int:
        looked_at.append(directory)
        return 1

    monkeypatch.setattr(scan, "_changed_ns", changed_ns)
    reader.turn(20)
    assert len(reader.lines) == 3
    assert [path for path in looked_at if path != str(tmp_path)] == []
