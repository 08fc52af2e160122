"""Numbered records into a log file that is rotated by rename, at an even pace: what a busy server does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.generate import generate_http

RECORDS_PER_SECOND = 3_000
STEP_SECONDS = 0.05
TEMPLATES = 1_000


class Feeder(threading.Thread):
    """Appends records `{"n":…,"stream":…, …}` to a file until told to stop; `sent` of them were written."""

    def __init__(self, path: Path, stream: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.path, self.stream, self.sent, self.rotations = path, stream.encode(), 0, 0
        self._rests = [record.partition(b",")[2] for record in generate_http(TEMPLATES, seed)]
        self._stop_asked, self._rotate_asked = threading.Event(), threading.Event()

    def run(self) -> None:
        started, written = time.monotonic(), 0
        while not self._stop_asked.wait(STEP_SECONDS):
            due = int((time.monotonic() - started) * RECORDS_PER_SECOND)
            with self.path.open("ab") as out:
                out.write(b"".join(self._line(n) for n in range(written, due)))
            self.sent = written = due
            if self._rotate_asked.is_set():
                self._rotate_asked.clear()
                self.rotations += 1
                self.path.rename(self.path.with_name(f"{self.path.name}.{self.rotations}"))

    def _line(self, n: int) -> bytes:
        return b'{"n":%d,"stream":"%b",%b\n' % (n, self.stream, self._rests[n % TEMPLATES])

    def rotate(self) -> None:
        """Rename the file behind the next records; those after them make it anew."""
        self._rotate_asked.set()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()
