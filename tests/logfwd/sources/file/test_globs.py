"""Globs: circles end, directories are looked into once, and what cannot be listed is said."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from logfwd.sources.file.globs import expand
from tests.logfwd.sources.file.follow_harness import Reader, append


def refuse(path: str, reason: str) -> None:
    raise AssertionError(f"{path}: {reason}")


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.log",
        "**",
        "**/*.log",
        "a/**/*.log",
        "a/**",
        "*/**/c.log",
        "**/b/**/*.log",
        "[a]/b/?.log",
        "x.log",
        "a/*/",
    ],
)
def test_without_links_it_finds_what_glob_finds(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "a/b/c.log", "a/b/d/e.log", "a/f.log", "g.log", ".hidden/h.log", "a/.i.log", "b/b/j.log", "k[1].log")
    full = str(tmp_path / pattern) + ("/" if pattern.endswith("/") else "")
    found = {path for path in expand(full, refuse) if os.path.isfile(path)}
    assert found == {path for path in glob.glob(full, recursive=True) if os.path.isfile(path)} - (
        set() if glob.has_magic(pattern) else {full}
    )


def test_links_in_circles_end_and_each_directory_is_looked_into_once(tmp_path: Path) -> None:
    make(tmp_path, "a/one.log", "b/two.log")
    for number in range(12):
        (tmp_path / f"circle-{number}").symlink_to(".")
    (tmp_path / "a" / "to-b").symlink_to("../b")
    (tmp_path / "b" / "to-a").symlink_to("../a")
    assert sorted(expand(f"{tmp_path}/**/*.log", refuse)) == [f"{tmp_path}/a/one.log", f"{tmp_path}/b/two.log"]


def test_a_directory_behind_a_link_is_found(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/one.log")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "link").symlink_to(tmp_path / "elsewhere")
    assert expand(f"{tmp_path}/logs/**/*.log", refuse) == [f"{tmp_path}/logs/link/one.log"]


@pytest.mark.parametrize("pattern", ["closed/*.log", "**/*.log", "*/*.log"])
def test_a_directory_that_cannot_be_listed_is_said(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "closed/one.log", "open/two.log")
    scandir = os.scandir

    def closed(path: str) -> object:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)  # root may list everything
    notes: list[tuple[str, str]] = []
    expand(f"{tmp_path}/{pattern}", lambda path, reason: notes.append((path, reason)))
    assert set(notes) == {(f"{tmp_path}/closed", "directory: Permission denied")}


def test_a_scan_says_once_what_leads_to_nothing_and_what_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "closed/one.log", "two.log")
    reader, scandir, is_closed = Reader(tmp_path / "*.json", tmp_path / "**" / "*.log"), os.scandir, True

    def maybe_closed(path: str) -> object:
        if is_closed and os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", maybe_closed)
    with capture_logs() as logs:
        reader.turn()
        reader.turn()
    assert [(log["event"], log.get("path", log.get("pattern"))) for log in logs] == [
        ("file unreadable", f"{tmp_path}/closed"),
        ("no file found", f"{tmp_path}/*.json"),
    ]
    append(tmp_path / "closed" / "one.log", b"1\n")
    make(tmp_path, "three.json")
    is_closed = False
    with capture_logs() as logs:
        assert reader.turn() == [b"1"]
    assert [log["event"] for log in logs] == ["file readable again"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "*x"]), min_size=1, max_size=4), max_size=8))
def test_any_tree_is_found_whole(tmp_path_factory: pytest.TempPathFactory, directories: list[list[str]]) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts in directories:
        make(root, "/".join([*parts, "f.log"]))
    found = expand(f"{root}/**/*.log", refuse)
    assert sorted(found) == sorted(glob.glob(f"{root}/**/*.log", recursive=True))
