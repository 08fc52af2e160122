"""Drives a `Follower` by hand: real files, a clock that jumps, positions committed when the test decides."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from logfwd.intake.batcher import Portion
from logfwd.sources.file.follow import Follower
from logfwd.sources.file.report import Report
from logfwd.sources.file.scanned import SCAN_KEY
from logfwd.sources.file.source import marks
from logfwd.sources.position import Block, Mark
from logfwd.sources.settings import FileSource

made: list[Reader] = []
"""By the present test, which leaves it to conftest.py to close what they hold open."""


class Reader:
    """One source across any number of restarts; `lines` is everything that was ever committed, in order."""

    def __init__(
        self,
        *patterns: Path | str,
        start_at: Literal["beginning", "end"] = "beginning",
        block_bytes: int = 1 << 20,
        max_record_bytes: int = 4096,
        max_open_files: int = 256,
        exclude: tuple[str, ...] = (),
        others: tuple[FileSource, ...] = (),
        rotated_wait_seconds: float = 5.0,
        **lines: Any,
    ) -> None:
        self.settings = FileSource(
            paths=tuple(map(str, patterns)),
            exclude=exclude,
            start_at=start_at,
            max_open_files=max_open_files,
            rotated_wait_seconds=rotated_wait_seconds,
            **lines,
        )
        self.counted: Counter[str] = Counter()
        self.files: Counter[str] = Counter()
        self.file_bytes: Counter[str] = Counter()
        self.block_bytes, self.max_record_bytes = block_bytes, max_record_bytes
        self.others = others
        self.now = 1000.0
        self.positions: dict[str, Mark] = {}
        self.scans: dict[str, Mark] = {}
        self.blocks: list[Block] = []
        self.uncommitted: list[Block] = []
        self.follower = self._make()
        made.append(self)

    def _make(self) -> Follower:
        return Follower(
            self.settings,
            self.positions | self.scans,
            block_bytes=self.block_bytes,
            max_record_bytes=self.max_record_bytes,
            others=lambda: self.others,
            count=self._count,
            report=Report(
                lambda event, files: self.files.update({event: files}),
                lambda event, size: self.file_bytes.update({event: size}),
            ),
        )

    def _count(self, state: str, records: int) -> None:
        self.counted[state] += records

    @property
    def open_files(self) -> int:
        return len(self.follower._files.opened.tails)

    @property
    def is_crowded(self) -> bool:
        """True if the last scan has left out files because too many others were open."""
        return self.follower._files.crowded

    @property
    def lines(self) -> list[bytes]:
        return b"".join(block.data for block in self.blocks).splitlines()

    def scan(self) -> None:
        self.follower.scan(self.now, time.time_ns() // 1_000_000)

    def read(self, count: int = 1_000_000) -> list[Block]:
        """Up to `count` blocks, without committing them."""
        got: list[Block] = []
        while len(got) < count and (block := self.follower.read(self.now, 1)) is not None:
            got.append(block)
        self.uncommitted += got
        return got

    def commit(self) -> None:
        committed = marks(Portion(self.uncommitted).positions())
        self.positions |= committed
        if SCAN_KEY in committed:
            self.scans = {SCAN_KEY: self.positions.pop(SCAN_KEY)}
        for key in self.follower.forgotten():
            self.positions.pop(key, None)
        self.follower.committed(committed)
        self.blocks += self.uncommitted
        self.uncommitted = []

    def turn(self, seconds: float = 1.0) -> list[bytes]:
        """Let time pass, scan until no scan is wanted, read everything, commit. Returns the new lines."""
        self.now += seconds
        before = len(self.lines)
        self.follower.poll(self.now)
        self.scan()
        self.read()
        while self.follower.end_due(self.now) <= self.now or self.follower.scan_wanted:
            self.scan()
            self.read()
        self.commit()
        return self.lines[before:]

    def restart(self) -> None:
        """As after kill -9: only what was committed is known."""
        self.follower.close()
        self.uncommitted = []
        self.follower = self._make()


def numbered(first: int, stop: int, width: int = 60) -> bytes:
    """Lines of `width` digits, no two equal."""
    return b"".join(b"%0*d\n" % (width, number) for number in range(first, stop))


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def edit_near_end(path: Path) -> None:
    """Change one byte in place, 100 bytes before the end."""
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"9")
