"""Copies next to a whole original wait for its truncation, counted from their last change."""

from __future__ import annotations

from math import inf

import pytest
from structlog.testing import capture_logs

from logfwd.sources.file.held import Held
from logfwd.sources.file.scan import Found

WAIT = 5.0


def copy(size: int = 10, mtime_ns: int = 1, *, configured: bool = True, inode: int = 1) -> Found:
    return Found("/logs/a.1", (1, inode), size, mtime_ns, mtime_ns, "/logs/a", configured)


def test_a_copy_has_waited_once_it_did_not_change_for_the_time_to_wait() -> None:
    held = Held(WAIT)
    assert not held.has_waited(copy(), 100.0)
    assert copy() in held
    assert held.deadline() == 105.0
    assert not held.has_waited(copy(), 104.9)
    with capture_logs() as logs:
        assert held.has_waited(copy(), 105.0)
    assert [(log["event"], log["path"], log["possible_repeat_bytes"]) for log in logs] == [
        ("file read again", "/logs/a.1", 10)
    ]
    assert "/logs/a," in logs[0]["reason"]
    assert copy() not in held


@pytest.mark.parametrize("changed", [copy(size=11), copy(mtime_ns=2)])
def test_a_copy_that_is_still_being_made_waits_from_its_last_change(changed: Found) -> None:
    held = Held(WAIT)
    held.has_waited(copy(), 100.0)
    assert not held.has_waited(changed, 104.0)
    assert not held.has_waited(changed, 108.9)
    assert held.has_waited(changed, 109.0)


@pytest.mark.parametrize("never", [copy(size=0), copy(configured=False)])
def test_empty_and_unconfigured_copies_wait_forever(never: Found) -> None:
    held = Held(WAIT)
    for now in (100.0, 1e6):
        assert not held.has_waited(never, now)
    assert held.deadline() == inf


def test_a_copy_that_becomes_configured_or_gets_content_begins_to_wait() -> None:
    held = Held(WAIT)
    held.has_waited(copy(configured=False), 100.0)
    assert not held.has_waited(copy(), 200.0)
    assert held.has_waited(copy(), 205.0)


def test_the_first_deadline_counts_and_files_that_are_gone_are_forgotten() -> None:
    held = Held(WAIT)
    held.has_waited(copy(inode=1), 100.0)
    held.has_waited(copy(inode=2), 101.0)
    assert held.deadline() == 105.0
    held.keep({(1, 2)})
    assert held.deadline() == 106.0
    assert copy() not in held


def test_another_file_with_the_inode_of_a_copy_that_waited_is_not_held() -> None:
    held = Held(WAIT)
    held.has_waited(copy(size=100), 100.0)
    held.keep({(1, 1)})
    assert copy(size=100) in held
    assert copy(size=20, mtime_ns=2) not in held
