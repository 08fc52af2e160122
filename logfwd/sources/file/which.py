"""Which file is which: how a listed file F relates to a stored position P. Decides, does no I/O.

Evidence, strongest first: the *handle* (inode and generation, handle.py); the inode, and within one boot its device;
*content*, which is the head (1 KiB at most), the tail (the 1 KiB before P) and four windows in between. An inode alone
lies because it is used again, content alone because it is copied.

| F against P                                                      | P's own file  | verdict                           |
|------------------------------------------------------------------|---------------|-----------------------------------|
| same handle, content fits                                        |               | SAME: go on                       |
| same handle, not shorter than P, head fits, tail differs         |               | EDITED if a window fits: go on    |
|                                                                  |               | and count it; else EMPTIED        |
| same handle, shorter than P or another head                      |               | EMPTIED: F from 0, P may pass to  |
|                                                                  |               | a copy                            |
| no handle; same inode, content fits                              | not elsewhere | SAME, or DOUBTFUL (claims.py)     |
| same inode, but another handle, or another device within a boot  |               | ANOTHER: a new file, though its   |
|                                                                  |               | content is equal                  |
| other inode, content fits                                        | emptied       | COPY: takes P                     |
| other inode, not shorter than P, head fits, tail differs, a      | emptied       | EDITED before it was copied:      |
| window fits                                                      |               | takes P, counted                  |
| other inode, content fits by at least 1 KiB, or F is no longer   | gone, not     | MOVED or restored: takes P,       |
| than P                                                           | known deleted | counted                           |
| other inode, content fits                                        | deleted       | NEW: from 0                       |
| other inode, content fits                                        | there, whole  | WAIT for P's file to be emptied   |
|                                                                  |               | (held.py): then COPY, else NEW if |
|                                                                  |               | `paths` matches F, else ignored   |
| nothing fits                                                     |               | NEW, if `paths`, `rotated` or a   |
|                                                                  |               | rename says that F is ours        |

A file is *deleted* when its last name is gone while we hold it open. "Not listed" never ends a position, age does
(`forget_after`). Content of fewer than 64 bytes proves nothing, except between a file and its rotated names.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

LEAST_BYTES = 64
"""Less content than this proves nothing: many files begin alike."""

ENOUGH_BYTES = 1024
"""That much equal content shows that a file is the continuation of one that is gone."""


class Evidence(NamedTuple):
    """What a file shows of a position; `same_handle` and `same_device` are None if they cannot be compared."""

    same_inode: bool
    same_handle: bool | None
    same_device: bool | None
    long_enough: bool
    head_fits: bool
    tail_fits: bool
    window_fits: bool
    compared_bytes: int
    is_whole: bool  # it ends at the position
    at_start: bool  # nothing was read

    @property
    def is_its_inode(self) -> bool:
        """True unless it is another inode, or one that was used again. A device may get another number."""
        if self.same_handle is not None:
            return self.same_inode and self.same_handle
        return self.same_inode and self.same_device is not False

    @property
    def content_fits(self) -> bool:
        return self.long_enough and self.head_fits and self.tail_fits

    @property
    def is_edited(self) -> bool:
        return self.long_enough and self.head_fits and self.window_fits


class Own(Enum):
    """What became of a position's own file."""

    EMPTIED = auto()
    GONE = auto()
    PRESENT = auto()


class Verdict(Enum):
    """What a file is to a position."""

    SAME = auto()
    EDITED = auto()
    EMPTIED = auto()
    ANOTHER = auto()
    COPY = auto()
    MOVED = auto()
    WAIT = auto()
    NEW = auto()


def with_same_inode(evidence: Evidence) -> Verdict:
    """The verdict on a file that has the inode number of a position."""
    if not evidence.is_its_inode:
        return Verdict.ANOTHER
    if evidence.content_fits:
        return Verdict.SAME if evidence.same_handle or not evidence.at_start else Verdict.ANOTHER
    return Verdict.EDITED if evidence.is_edited else Verdict.EMPTIED


def with_other_inode(evidence: Evidence, own: Own, *, is_rotated_name: bool) -> Verdict:
    """The verdict on a file that only its content can connect with a position."""
    if own is Own.EMPTIED and evidence.is_edited:
        return Verdict.EDITED
    if not evidence.content_fits or not evidence.compared_bytes:
        return Verdict.NEW
    if not is_rotated_name and evidence.compared_bytes < LEAST_BYTES:
        return Verdict.NEW
    if own is Own.EMPTIED:
        return Verdict.COPY
    if own is Own.PRESENT:
        return Verdict.WAIT
    proven = evidence.compared_bytes >= ENOUGH_BYTES or (evidence.is_whole and evidence.compared_bytes >= LEAST_BYTES)
    return Verdict.MOVED if proven else Verdict.NEW
