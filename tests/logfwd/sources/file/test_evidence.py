"""What a file shows of a position, and the verdict on it: each piece of evidence counts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from logfwd.sources.file.beginnings import Beginnings, differs_in_one_place
from logfwd.sources.file.identity import place_at
from logfwd.sources.file.report import Report
from logfwd.sources.file.scan import Found
from logfwd.sources.file.which import Evidence, Own, Verdict, with_other_inode, with_same_inode
from tests.logfwd.sources.file.follow_harness import numbered

SAME = Evidence(
    same_inode=True,
    same_handle=None,
    same_device=None,
    long_enough=True,
    head_fits=True,
    tail_fits=True,
    window_fits=False,
    compared_bytes=1024,
    is_whole=True,
    at_start=False,
)


@pytest.mark.parametrize(
    ("handle", "device", "verdict"),
    [
        (True, False, Verdict.SAME),  # a device may get another number
        (True, None, Verdict.SAME),
        (None, True, Verdict.SAME),
        (None, None, Verdict.SAME),  # another boot
        (None, False, Verdict.ANOTHER),
        (False, True, Verdict.ANOTHER),
    ],
)
def test_an_inode_counts_unless_handle_or_device_show_that_it_is_another_one(
    handle: bool | None, device: bool | None, verdict: Verdict
) -> None:
    assert with_same_inode(SAME._replace(same_handle=handle, same_device=device)) is verdict


@pytest.mark.parametrize("missing", ["long_enough", "head_fits", "tail_fits"])
def test_content_fits_if_the_file_is_long_enough_and_both_its_ends_fit(missing: str) -> None:
    other = SAME._replace(**{missing: False})
    assert (SAME.content_fits, other.content_fits) == (True, False)
    assert with_same_inode(other) is Verdict.EMPTIED
    assert [with_other_inode(other, own, is_rotated_name=True) for own in Own] == [Verdict.NEW] * 3


def test_a_file_is_edited_if_its_head_and_a_window_fit_and_only_then() -> None:
    edited = SAME._replace(tail_fits=False, window_fits=True)
    assert with_same_inode(edited) is Verdict.EDITED
    assert with_other_inode(edited, Own.EMPTIED, is_rotated_name=True) is Verdict.EDITED
    for other in (edited._replace(head_fits=False), edited._replace(window_fits=False)):
        assert with_same_inode(other) is Verdict.EMPTIED
        assert with_other_inode(other, Own.EMPTIED, is_rotated_name=True) is Verdict.NEW


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (b"one\ntwo\n", b"one\ntwo\nmore\n", True),
        (b"one\ntwo\n", b"one\ntwO\nmore\n", True),
        (b"one\ntwo\n", b"oNe\ntwO\n", False),
        (b"one\ntwo\n", b"one\ntw", False),
        (b"x" * 63 + b"\n", b"y" * 63 + b"\n", True),
        (b"x" * 64 + b"\n", b"y" * 64 + b"\n", False),
        (b"a" + b"-" * 200_000 + b"a\n", b"b" + b"-" * 200_000 + b"b\n", False),
    ],
)
def test_a_copy_may_differ_in_one_place_of_one_line(tmp_path: Path, ours: bytes, theirs: bytes, expected: bool) -> None:
    (tmp_path / "copy").write_bytes(ours)
    (tmp_path / "original").write_bytes(theirs)
    with (tmp_path / "copy").open("rb") as copy, (tmp_path / "original").open("rb") as original:
        assert differs_in_one_place(copy.fileno(), original.fileno()) is expected


def test_an_original_that_is_not_what_was_read_has_no_copies_until_its_edit_was_noticed(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_bytes(numbered(0, 200))
    shutil.copyfile(path, copy)
    status = copy.stat()
    found = Found(str(copy), (1, status.st_ino), status.st_size, status.st_mtime_ns, 0, str(path))
    beginnings = Beginnings(Report())
    with path.open("r+b") as original, copy.open("rb") as other:
        place = place_at(original.fileno(), 200 * 61)
        os.pwrite(original.fileno(), b"9", 199 * 61)
        assert not beginnings.is_beginning(found, other.fileno(), place, original.fileno())
        assert beginnings.is_beginning(found, other.fileno(), place.edited(original.fileno()), original.fileno())
