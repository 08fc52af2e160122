"""Numbered records into a log file that is rotated by rename, at an even pace, as on a busy server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.lab.generate import generate_http

RECORDS_PER_SECOND = 3_000
STEP_SECONDS = 0.05
TEMPLATES = 1_000


@cache
def _templates(seed: int) -> list[bytes]:
    """Everything after the first field of some generated records."""
    return [record.partition(b",")[2] for record in generate_http(TEMPLATES, seed)]


def numbered_lines(stream: str, first: int, end: int, seed: int = 1) -> Iterator[bytes]:
    """Records `{"n":…,"stream":…, …}` in the oracle's format, numbered first … end − 1."""
    rests = _templates(seed)
    return (b'{"n":%d,"stream":"%b",%b\n' % (n, stream.encode(), rests[n % TEMPLATES]) for n in range(first, end))


class Feeder(threading.Thread):
    """Appends numbered records to a file until `stop`; `sent` counts them."""

    def __init__(self, path: Path, stream: str, seed: int, *, per_second: int = RECORDS_PER_SECOND) -> None:
        super().__init__(daemon=True)
        self.per_second = per_second
        self.path, self.stream, self.seed = path, stream, seed
        self.sent = self.rotations = 0
        self._stop_asked, self._rotate_asked = threading.Event(), threading.Event()

    def run(self) -> None:
        started, written = time.monotonic(), 0
        while not self._stop_asked.wait(STEP_SECONDS):
            due = int((time.monotonic() - started) * self.per_second)
            with self.path.open("ab") as out:
                out.write(b"".join(numbered_lines(self.stream, written, due, self.seed)))
            self.sent = written = due
            if self._rotate_asked.is_set():
                self._rotate_asked.clear()
                self.rotations += 1
                self.path.rename(self.path.with_name(f"{self.path.name}.{self.rotations}"))

    def rotate(self) -> None:
        """Rename the file after the next records are written; later records recreate it."""
        self._rotate_asked.set()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()
