"""When files that changed are taken."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from streams import watching
from streams.watching import GONE_SECONDS, STILL_SECONDS, Stamps, Watched, stamps_of
from tests.support.installation import eventually

OLD: Stamps = ((1, 1, 1), (2, 2, 2))
NEW: Stamps = ((1, 1, 1), (3, 2, 2))
NEWER: Stamps = ((4, 1, 1), (3, 2, 2))
GONE: Stamps = ((1, 1, 1), None)


def test_a_change_is_taken_once_it_has_kept_still() -> None:
    watched = Watched(OLD, 0.0)
    assert not watched.due(OLD, 100.0)
    assert not watched.due(NEW, 101.0)
    assert not watched.due(NEWER, 101.0 + STILL_SECONDS)
    assert not watched.due(NEWER, 101.0 + 2 * STILL_SECONDS - 0.1)
    assert watched.due(NEWER, 101.0 + 2 * STILL_SECONDS)
    assert not watched.due(NEWER, 200.0)


def test_a_change_that_is_taken_back_in_time_is_none() -> None:
    watched = Watched(OLD, 0.0)
    assert not watched.due(NEW, 1.0)
    assert not watched.due(OLD, 2.0)
    assert not watched.due(OLD, 100.0)


def test_a_file_that_is_gone_is_waited_for() -> None:
    watched = Watched(OLD, 0.0)
    assert not watched.due(GONE, 1.0)
    assert not watched.due(GONE, 1.0 + STILL_SECONDS)
    assert watched.due(GONE, 1.0 + GONE_SECONDS)


def test_a_swapped_link_of_a_directory_changes_all_of_its_files(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        for name in ("a", "b"):
            (tmp_path / version / name).write_text(version)
    (tmp_path / "data").symlink_to("1")
    paths = [tmp_path / "data" / name for name in ("a", "b")]
    before = stamps_of(paths)
    (tmp_path / "new").symlink_to("2")
    os.replace(tmp_path / "new", tmp_path / "data")
    assert all(one != other for one, other in zip(before, stamps_of(paths), strict=True))
    (tmp_path / "data").unlink()
    assert stamps_of(paths) == (None, None)


async def test_a_written_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "STILL_SECONDS", 0.05)
    path, changes = tmp_path / "file", list[float]()
    path.write_text("1")
    async with watching.watching(lambda: [path], lambda: changes.append(asyncio.get_running_loop().time())):
        path.write_text("22")
        await eventually(lambda: changes)
        await asyncio.sleep(0.1)
        assert len(changes) == 1
