"""A program that writes numbered records to its log at an even pace, and what happens to its files meanwhile.

They are rotated, copied, emptied, edited, deleted and taken away with their directory. What docs/delivery.md does not
promise is known here by its numbers: `may_be_lost` has the records that were written between a copy and a truncate.
Everything else is promised once and in order: so a file is deleted only when its records are known to be stored, no
byte is edited near the start of a file, a file is not edited twice after it was copied, and an original is not deleted
before its copies.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

from bench.lab.feeder import STEP_SECONDS, numbered_lines

RECORDS_PER_SECOND = 3_000
HOLE_BYTES = 4_000_000
"""The longest hole between two lines."""
EDITED_FROM = 4096
"""With less data than this before it, an edit cannot be told from a file that was written anew."""
EDIT_REACH = 2_000
"""A record is shorter than that; an edit at the end of a file is so near to it."""
BETWEEN_RECORDS = 200
"""At most so many are written between a copy and a truncate."""
KNOWN_RECORDS = 10
"""A file of which so many are read is known by its first 1 KiB."""
INODE_TRIES = 50
EDITED = b'"timestamp":"'
"""The byte behind this is edited, a digit."""


class Writer(threading.Thread):
    """Appends to FOLDER/STREAM.log until `stop`; `sent` counts the records. Its methods may be called at any time."""

    def __init__(self, folder: Path, stream: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.stream, self.seed = folder, stream, seed
        self.sent = 0
        self.may_be_lost: list[range] = []
        self.reused_inodes = 0
        self._place = folder  # where the directory is now
        self._holes = self._end = 0  # bytes of holes in the file, and where the next lines go
        self._first = 0  # the number of its first record
        self._copied = self._edited = False  # it was copied, and edited since
        self._index = 0
        self._old: list[tuple[Path, int, bool]] = []
        """Names of rotated files and copies, the number after their last record, and whether they are mere copies."""
        self._lock, self._over = threading.Lock(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        started = time.monotonic()
        while not self._over.wait(STEP_SECONDS):
            with self._lock:
                self._write(int((time.monotonic() - started) * RECORDS_PER_SECOND) - self.sent)

    def stop(self) -> None:
        self._over.set()
        self.join()

    @property
    def _path(self) -> Path:
        return self._place / f"{self.stream}.log"

    def _write(self, count: int) -> None:
        lines = b"".join(numbered_lines(self.stream, self.sent, self.sent + count, self.seed))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            self._end += os.pwrite(descriptor, lines, self._end)
        finally:
            os.close(descriptor)
        self.sent += count

    def _aside(self, ending: str = "") -> Path:
        """A new name for a rotated file or a copy."""
        self._index += 1
        return self._path.with_name(f"{self._path.name}{ending}.{self._index}")

    def _keep(self, path: Path, *, is_copy: bool) -> None:
        self._old.append((Path(path.name), self.sent, is_copy))

    # -- what happens to the files -----------------------------------------------------------------------------

    def rotate(self) -> None:
        """Rename the file; the next records create it anew."""
        with self._lock:
            self._rotate()

    def _rotate(self) -> None:
        if self._end:
            self._keep(self._path.rename(self._aside()), is_copy=False)
            self._holes = self._end = 0
            self._first = self.sent
            self._copied = self._edited = False

    def copy(self, stored: int, *, rotated_name: bool) -> None:
        """Copy the file, which goes on to be written, to a rotated name or to one that means nothing.

        A file of which nothing was read yet (`stored`: the first records that are) is not copied to a rotated name:
        with no position to compare it with, the copy would be read, too.
        """
        with self._lock:
            if self._end:
                copy = self._aside("" if rotated_name and stored > self._first + KNOWN_RECORDS else ".bak")
                shutil.copyfile(self._path, copy)
                self._keep(copy, is_copy=True)
                self._copied = True

    def copy_and_truncate(self, *, goes_on: bool, between: float) -> None:
        """Rotate by copy and truncate.

        `goes_on`: the writer keeps its offset, so that the emptied file begins with a hole. `between`, in [0, 1), is
        the share of BETWEEN_RECORDS that is written after the copy and lost with the truncate, unless it was read.
        """
        with self._lock:
            if not self._end:
                return
            copy = self._aside()
            shutil.copyfile(self._path, copy)
            self._keep(copy, is_copy=False)
            if lost := int(between * BETWEEN_RECORDS):
                self._write(lost)
                self.may_be_lost.append(range(self.sent - lost, self.sent))
            os.truncate(self._path, 0)
            self._holes = self._end = self._end if goes_on else 0
            self._first = self.sent
            self._copied = self._edited = False

    def make_hole(self, share: float) -> None:
        """Leave a hole of up to HOLE_BYTES before the next line."""
        with self._lock:
            size = int(share * HOLE_BYTES) if self._end else 0
            self._end += size
            self._holes += size

    def edit(self, where: float, *, at_end: bool) -> None:
        """Change one byte that does not identify a record, in place: near the end, or anywhere."""
        with self._lock:
            first, last = self._holes + EDITED_FROM, self._end - EDIT_REACH
            if first > last or self._edited:
                return
            self._edited = self._copied
            offset = last if at_end else first + int(where * (last - first))
            with self._path.open("r+b") as file:
                file.seek(offset)
                if (found := file.read(EDIT_REACH).rfind(EDITED)) >= 0:
                    file.seek(offset + found + len(EDITED))
                    digit = file.read(1)
                    file.seek(-1, os.SEEK_CUR)
                    file.write(b"%d" % ((int(digit) + 1) % 10))

    def recycle(self, stored: int) -> None:
        """Delete the old files of which the first `stored` records are all, and rotate: the new file gets an inode."""
        with self._lock:
            done = sorted((each for each in self._old if each[1] <= stored), key=lambda each: not each[2])
            freed = set[int]()
            for each in done:
                path = self._place / each[0]
                freed.add(path.stat().st_ino)
                path.unlink()
                self._old.remove(each)
            if not self._end and any(each[1] > stored for each in self._old):
                return  # an emptied file stays as long as its copy is not stored
            self._rotate()
            self._make_anew(freed)

    def _make_anew(self, freed: set[int]) -> None:
        """Create the file, with one of these inodes if the file system gives it away again soon."""
        tries = [self._place / f".try{number}" for number in range(INODE_TRIES if freed else 1)]
        for path in tries:
            path.touch()
            if path.stat().st_ino in freed:
                self.reused_inodes += 1
                break
        path.rename(self._path)
        for path in tries:
            path.unlink(missing_ok=True)

    def unmount(self, *, leaves_empty: bool) -> None:
        """Take the directory away, with what is written meanwhile; an empty one may be left, as by a mount point."""
        with self._lock:
            self._place = self.folder.rename(self.folder.with_name(f"{self.folder.name}.away"))
            if leaves_empty:
                self.folder.mkdir()

    def mount(self) -> None:
        """Bring the directory back."""
        with self._lock:
            if self.folder.exists():
                self.folder.rmdir()
            self._place = self._place.rename(self.folder)
