"""Which symbolic links are followed: those of root, and those to what belongs to the link's owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_follow import events

MALLORY, ALICE = 12_345, 12_346

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")


def link_of(user: int, link: Path, target: Path) -> None:
    link.symlink_to(target)
    os.lchown(link, user, -1)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    append(tmp_path / "secret" / "key.log", numbered(0, 1))
    return tmp_path / "secret" / "key.log"


@needs_root
@pytest.mark.parametrize("pattern", ["*.log", "app.log", "**/*.log"])
def test_a_users_link_to_a_file_of_another_user_is_not_followed_and_said(
    logs: Path, secret: Path, pattern: str
) -> None:
    link_of(MALLORY, logs / "app.log", secret)
    reader = Reader(logs / pattern)
    with capture_logs() as lines:
        reader.turn()
        reader.turn()
    assert reader.lines == []
    reasons = events(lines, "file unreadable")
    assert len(reasons) == 1
    assert "symbolic link of user 12345 to what belongs to user 0" in str(reasons[0])


@needs_root
def test_links_of_root_and_links_to_ones_own_files_are_followed(logs: Path, secret: Path) -> None:
    os.chown(secret, ALICE, -1)
    link_of(ALICE, logs / "own.log", secret)
    reader = Reader(logs / "*.log")
    assert len(reader.turn()) == 1
    append(other := secret.with_name("other.log"), numbered(1, 2))
    os.chown(other, ALICE, -1)
    link_of(0, logs / "of-root.log", other)
    assert len(reader.turn()) == 1


@needs_root
@pytest.mark.parametrize("pattern", ["*/*.log", "**/*.log", "app/*.log"])
def test_a_directory_that_a_user_replaced_by_a_link_is_not_looked_into(logs: Path, secret: Path, pattern: str) -> None:
    (logs / "app").mkdir()
    append(logs / "app" / "a.log", numbered(5, 6))
    reader = Reader(logs / pattern)
    assert reader.turn() == numbered(5, 6).splitlines()
    (logs / "app").rename(logs / "app-before.d")
    for path in (logs / "app-before.d").iterdir():
        path.unlink()
    append(secret.with_name("a.log.1"), numbered(7, 8))  # named as if it had been rotated
    link_of(MALLORY, logs / "app", secret.parent)
    with capture_logs() as lines:
        for _ in range(8):
            reader.turn()
    assert reader.lines == numbered(5, 6).splitlines()
    assert any("symbolic link of user" in str(reason) for reason in events(lines, "file unreadable"))


@needs_root
def test_every_link_is_followed_with_all(logs: Path, secret: Path) -> None:
    link_of(MALLORY, logs / "app.log", secret)
    assert len(Reader(logs / "*.log", follow_links="all").turn()) == 1


def test_no_link_is_followed_with_none_but_in_named_directories(logs: Path, tmp_path: Path) -> None:
    append(logs / "a.log", numbered(0, 1))
    (logs / "link.log").symlink_to("a.log")
    (logs / "more").symlink_to(logs)
    (tmp_path / "named").symlink_to(logs)
    with capture_logs() as lines:
        reader = Reader(tmp_path / "named" / "**/*.log", follow_links="none")
        assert len(reader.turn()) == 1
    refused = {log["path"] for log in lines if log["event"] == "file unreadable"}
    assert refused == {str(tmp_path / "named" / name) for name in ("link.log", "more")}
