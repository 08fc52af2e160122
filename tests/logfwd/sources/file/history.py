"""A directory of logs over time, and a reader that is up or down: what may be lost or repeated, and what was said.

Files, inodes and handles are real. Devices and boots change as the history says: `id_of` and `BOOT` are replaced.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from logfwd.sources.file import follow, identity, scan
from logfwd.sources.file.marks import read_mark
from tests.logfwd.sources.file.follow_harness import Reader, append

NAMES = ("app.log", "b.log", "c-1")
DONE = b'{"job":"done"}'
LOSSES = ("file gone unread", "rotated file not found", "let go of a file that may still be written")
COUNTED = {
    "file read again": ("read_again", "possible_repeat_bytes"),
    "file gone unread": ("gone_unread", "bytes"),
    "rotated file not found": ("not_found", "read_bytes"),
    "let go of a file that may still be written": ("let_go", "bytes"),
    "file recognised by its content": ("recognised", "read_bytes"),
    "file changed before its position": ("edited", "read_bytes"),
}
"""Events, each with its counter's label and the field that holds its size."""


File = tuple[int, bytes]
"""Inode and handle."""


class Loss(NamedTuple):
    """Lines of a file that are there no more; if they are missing, that has to be said."""

    family: str
    lines: set[bytes]
    file: File
    known: frozenset[str]
    """The keys of the positions that were stored by then: later ones are of what came after these lines."""


class History:
    """One directory of logs, and a reader; `is_apart`: something may happen between its scan and its reading."""

    def __init__(self, folder: Path, seed: int, *, handles: bool, is_apart: bool, patch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        self.handles, self.is_apart = handles, is_apart
        self.folder, self.away, self.other = folder / "logs", folder / "away", folder / "copy"
        self.folder.mkdir()
        self.device, self._patch = 0, patch
        for module in (identity, scan, follow):
            patch.setattr(module, "id_of", lambda status: (status.st_dev + self.device, status.st_ino))
        if not handles:
            patch.setattr(identity, "handle_of", lambda _: b"")
        patterns = self.random.choice([("*",), NAMES, ("*.log", "c-1")])
        self.reader = Reader(
            *(self.folder / pattern for pattern in patterns),
            max_open_files=self.random.choice([1, 2, 256]),
            block_bytes=self.random.choice([256, 4096, 1 << 20]),
            max_record_bytes=200,
            rotated_wait_seconds=self.random.choice([5.0, 60.0]),
        )
        self.is_up, self.number, self.jobs = True, 0, 0
        self.writers: list[IO[bytes]] = []
        self.written: set[bytes] = set()
        self.may_be_lost: set[bytes] = set()
        self.may_repeat: set[bytes] = set()
        self.only_open: dict[File, tuple[str, set[bytes]]] = {}
        """Lines of a deleted file that can be read as long as the reader has it open."""
        self.losses: list[Loss] = []
        self.rewritten: set[bytes] = set()
        """Lines of which another version may have been read."""
        self.edited: set[str] = set()
        """Families in which a file's first kilobyte may have changed: another start reads it again."""
        self.untold: set[str] = set()
        """Families in which content was there again when no position told of it."""
        self.copied_and_gone: set[str] = set()
        """Families in which a file was deleted that has copies, until all of them were looked at: a restart in between
        forgets what they are copies of."""
        self.unusual: set[str] = set()
        """Families to which something else happened than writing and renaming."""
        self.emptied_unseen: set[File] = set()
        """Files that were copied and emptied since the last look: nobody knows that there was more behind the copy."""
        self.looked: dict[int, int] = {}
        """By inode: sizes of the files that the reader had open, as of its last look."""
        self.logs: list[MutableMapping[str, Any]] = []
        self.steps: list[str] = []

    # -- the reader ------------------------------------------------------------------------------------------------

    def turn(self, seconds: float) -> None:
        self.reader.turn(seconds)
        self.note_look()

    def note_look(self) -> None:
        self.emptied_unseen.clear()
        if not self.reader.is_crowded:
            self.copied_and_gone.clear()
        read = {known[0].inode for known in map(read_mark, self.reader.positions.values()) if known}
        for path in self.files():
            if (status := path.stat()).st_ino in read or self.is_open(path):
                self.looked[status.st_ino] = status.st_size

    def files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.exists() else []

    def kill(self) -> None:
        """What can be read only as long as a deleted file is open is lost with the process."""
        for file, (family, lines) in self.only_open.items():
            self.lose(family, lines - set(self.reader.lines), file)
        self.losses = [loss for loss in self.losses if self.has_said(loss.family) or self.has_position(loss)]
        self.only_open, self.looked = {}, {}
        self.untold |= self.copied_and_gone
        self.reader.follower.close()
        self.reader.uncommitted = []
        self.is_up = False

    def start(self) -> None:
        self.reader.restart()
        self.is_up = True
        self.turn(0.1)

    def boot(self) -> None:
        """Another boot; devices may have other numbers, and the clock begins anew."""
        self._patch.setattr(identity, "BOOT", b"boot %d" % self.random.getrandbits(32))
        self.device = self.random.randrange(3)
        self.reader.now = 5.0

    def has_position(self, loss: Loss) -> bool:
        """True if a stored position says that more is expected of this file."""
        known = [each for key in loss.known if (mark := self.reader.positions.get(key)) and (each := read_mark(mark))]
        return self.handles and any(
            (place.inode, place.handle) == loss.file
            and family_of(os.path.basename(os.fsdecode(detail.path))) == loss.family
            and not detail.settled
            for place, detail in known
        )

    def offsets(self, path: Path) -> list[int]:
        """The committed positions in the file that has this path now."""
        known = [read_mark(mark) for mark in self.reader.positions.values()]
        inode = path.stat().st_ino if path.exists() else 0
        return [each[0].offset for each in known if each and each[1].path == bytes(path) and each[0].inode == inode]

    def is_open(self, path: Path | IO[bytes]) -> bool:
        """True if the reader has this file open."""
        status = os.fstat(path.fileno()) if not isinstance(path, Path) else path.stat()
        same = 0
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                same += os.path.samestat(os.fstat(int(fd)), status)
        return same > sum(os.path.samestat(os.fstat(writer.fileno()), status) for writer in self.writers)

    # -- lines -----------------------------------------------------------------------------------------------------

    def some_file(self) -> Path:
        return self.folder / self.random.choice(NAMES)

    def lines(self, path: Path) -> set[bytes]:
        return set(path.read_bytes().splitlines()) if path.exists() else set()

    def unread(self, path: Path) -> set[bytes]:
        return self.lines(path) - set(self.reader.lines)

    def new_lines(self, name: str, count: int) -> bytes:
        lines = [b"%s %060d" % (os.fsencode(name), self.number + each) for each in range(count)]
        self.number += count
        self.written.update(lines)
        if family_of(name) in self.edited:
            self.may_repeat.update(lines)
        return b"\n".join(lines) + b"\n"

    def put(self, path: Path, count: int) -> None:
        append(path, self.new_lines(path.name, count))

    def lose(self, family: str, lines: set[bytes], file: File | None) -> None:
        """These lines may be lost; if they are, the reader has to say so if it has seen them, or knows their file."""
        self.may_be_lost |= lines
        self.unusual.add(family)
        if lines and file is not None:
            self.losses.append(Loss(family, lines, file, frozenset(self.reader.positions)))

    def destroy(self, path: Path, *, emptied: bool = False) -> None:
        """Call before the content of a file goes away: it is deleted, or emptied."""
        if not path.exists():
            return
        family, file, unread = family_of(path.name), file_at(path), self.unread(path)
        self.unusual.add(family)
        for copy in self.folder.glob(f"{family}.*"):  # a copy of a deleted file is a new one
            self.may_repeat |= self.lines(copy)
            self.copied_and_gone.add(family)
        if self.is_up and not emptied and self.is_open(path):
            before = self.only_open.get(file, ("", set[bytes]()))[1]
            self.only_open[file] = family, unread | before
            return
        if self.has_position(Loss(family, unread, file, frozenset(self.reader.positions))) and not self.is_up:
            # a copy of it is taken for one that was made for this truncate: nobody knows that there was more
            is_explained = file in self.emptied_unseen or (emptied and self.is_copied(path))
            self.lose(family, unread, None if is_explained else file)
            return
        taken = set(b"".join(block.data for block in self.reader.uncommitted).splitlines())
        seen = set(path.read_bytes()[: self.looked.pop(file[0], 0)].splitlines()) - taken
        self.lose(family, unread & seen, file)
        self.lose(family, unread - seen, None)

    def is_copied(self, path: Path) -> bool:
        """True if another file has nothing but lines of this one, except for one that was edited since."""
        others = [lines for each in self.files() if each != path and (lines := self.lines(each))]
        return any(len(lines - self.lines(path)) <= 1 for lines in others)

    def comes_back(self, path: Path) -> None:
        """Call when the content of a deleted file is there again: in time, or not before another start."""
        if self.is_up and self.random.random() < 0.5:
            self.turn(0.1)
            self.turn(10)
        elif self.is_up:
            self.untold.add(path.name)

    def set_aside(self, path: Path) -> Path:
        """Make room for a rotated name, as logrotate does; what falls off the end may not have been read."""
        for index in range(7, 0, -1):
            if (old := path.with_name(f"{path.name}.{index}")).exists():
                if index == 7:
                    self.destroy(path.with_name(f"{path.name}.8"))
                old.rename(path.with_name(f"{path.name}.{index + 1}"))
        return path.with_name(f"{path.name}.1")

    # -- the verdict -----------------------------------------------------------------------------------------------

    def has_said(self, family: str) -> bool:
        """True if a loss in this family was said, or one of many files."""
        return any(
            (each["event"] in LOSSES and family_of(os.path.basename(each["path"])) == family)
            or each["event"] == "files gone while stopped"
            for each in self.logs
        )

    def judge(self) -> None:
        got = Counter(line for line in self.reader.lines if line != DONE)
        lost = self.written - got.keys()
        twice = {line for line, times in got.items() if times > 1}
        strange = got.keys() - self.written
        found = sorted(lost - self.may_be_lost), sorted(twice - self.may_repeat), sorted(strange)
        assert found == ([], [], [])
        assert self.reader.lines.count(DONE) == self.jobs
        self.judge_counters()
        said = [
            (each["event"], family_of(os.path.basename(each["path"])), each) for each in self.logs if "path" in each
        ]
        for loss in self.losses:
            missing = loss.lines & lost - self.rewritten
            assert not missing or self.has_said(loss.family), ("lost, and not said", loss.family, sorted(missing))
        for name in sorted(set(NAMES) - self.untold):
            repeated = sum((len(line) + 1) * (got[line] - 1) for line in twice if family_of(line.decode()) == name)
            counted = sum(
                each["possible_repeat_bytes"]
                for event, family, each in said
                if event == "file read again" and family == name
            )
            assert repeated <= counted, ("repeated, and not said", name, repeated, counted)
        calm = [(event, each) for event, family, each in said if event in COUNTED and family not in self.unusual]
        assert calm == [] or not self.handles

    def judge_counters(self) -> None:
        files, sizes = Counter[str](), Counter[str]()
        for each in self.logs:
            if each["event"] in COUNTED:
                label, field = COUNTED[each["event"]]
                files[label] += 1
                sizes[label] += each[field]
            elif each["event"] == "files gone while stopped":
                files["not_found"] += each["files"]
                sizes["not_found"] += each["read_bytes"]
        assert (+files, +sizes) == (+self.reader.files, +self.reader.file_bytes)

    def close(self) -> None:
        self.reader.follower.close()
        for writer in self.writers:
            writer.close()


def file_of(fd: int) -> File:
    place = identity.Place(0).in_file(fd)
    return place.inode, place.handle


def file_at(path: Path) -> File:
    with path.open("rb") as file:
        return file_of(file.fileno())


def family_of(name: str) -> str:
    """The name that a file had before it was rotated or copied."""
    return next((each for each in NAMES if each in name), name)
