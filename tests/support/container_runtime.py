"""Log files as container runtimes write and rotate them, by a process of their own at full speed.

    python -m tests.support.container_runtime docker|cri DIRECTORY

Every container begins with one record. Each line on stdin asks for one burst of output of every container; the number
of whole records so far is printed after it. At the end of stdin the records that are open are finished. What is said
depends on the kind alone, so a test that makes the same bursts with `Runtime(kind, None)` knows what must have arrived.

docker  dockerd's json-file driver: parts of 16 KiB; a file of `max-size` becomes NAME.1, NAME.1 becomes NAME.2 …, and
        the last of `max-file` is overwritten.
cri     containerd and the kubelet: parts of 16 KiB; 0.log becomes 0.log.TIME, into which the runtime goes on writing
        until it is told to reopen; older ones become 0.log.TIME.gz, and all but a few are removed.

A burst is at most what a forwarder that does not run may miss: dockerd rotates less often than `max-file`, the kubelet
once, so that nothing is overwritten or compressed unread.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

Kind = Literal["docker", "cri"]
CONTAINERS = 3
PART_BYTES = 16 * 1024
MAX_FILE_BYTES = 300_000
MAX_FILES = 5
BURST_BYTES = 3 * MAX_FILE_BYTES
STREAMS = ("stdout", "stderr")

Expected = dict[tuple[str, str], list[dict[str, Any]]]
"""The records of each container and stream, in order."""


def path_of(directory: Path, kind: Kind, number: int) -> Path:
    """The log of a container, where its runtime keeps it."""
    if kind == "docker":
        name = f"{number:064x}"
        return directory / "containers" / name / f"{name}-json.log"
    return directory / "pods" / f"default_web-{number}_uid-{number}" / "app" / "0.log"


class Container:
    """What one container says, line by line, and the files that hold it; without a directory only what it says."""

    def __init__(self, kind: Kind, directory: Path | None, number: int) -> None:
        self.kind, self.name = kind, f"c{number}"
        self._dice = random.Random(f"{kind} {number}")
        self._lines = self._said = self._rotations = 0
        self._parts: dict[str, list[bytes]] = {}  # of the records that are open, still to be written
        self._open: dict[str, tuple[str, str]] = {}  # text, and time of the first part
        self.records: Expected = defaultdict(list)
        self._path = None if directory is None else path_of(directory, kind, number)
        if self._path is not None:
            self._path.parent.mkdir(parents=True)
            self._file = self._create()
        self._written = 0
        while not self.records:
            self._write(self._next_line("stdout"))

    # -- what it says ------------------------------------------------------------------------------------------

    def burst(self) -> None:
        """Write at full speed, and rotate as the runtime does."""
        rotate_after = self._dice.randrange(BURST_BYTES) if self.kind == "cri" else None
        written = 0
        while written < BURST_BYTES:
            line = self._next_line(self._dice.choice(STREAMS))
            if self.kind == "docker" and self._written >= MAX_FILE_BYTES:
                self._rotate_docker()
            self._write(line)
            written += len(line)
            if rotate_after is not None and written >= rotate_after:
                rotate_after = None
                self._rotate_cri()

    def finish(self) -> None:
        """The rest of the records that are open."""
        for stream in STREAMS:
            while stream in self._parts:
                self._write(self._next_line(stream))

    def _next_line(self, stream: str) -> bytes:
        """The next line of the runtime: a whole record, or a part of one."""
        self._lines += 1
        time = f"2026-01-31T10:00:00.{self._lines:09d}Z"
        if stream not in self._parts:
            text = self._text()
            data = text.encode()
            self._parts[stream] = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
            self._open[stream] = text, time
        part = self._parts[stream].pop(0)
        is_end = not self._parts[stream]
        if is_end:
            del self._parts[stream]
            self._end(stream)
        if self.kind == "cri":
            return b"%b %b %b %b\n" % (time.encode(), stream.encode(), b"F" if is_end else b"P", part)
        line = {"log": part.decode() + "\n" * is_end, "stream": stream, "time": time}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def _end(self, stream: str) -> None:
        text, time = self._open.pop(stream)
        is_object = text.startswith("{")
        record = json.loads(text) if is_object else {"message": text}
        self.records[self.name, stream].append(record | {"time": time, "stream": stream})

    def _text(self) -> str:
        """Mostly short, now and then of several parts; text, or an object. Docker spoils a character that it cuts."""
        self._said += 1
        dice = self._dice.random()
        size = self._dice.randrange(PART_BYTES // 2, 4 * PART_BYTES) if dice < 0.02 else self._dice.randrange(200)
        letter = "é" if self.kind == "cri" or size < 200 else "e"
        if dice > 0.7:
            return json.dumps({"container": self.name, "n": self._said, "padding": "x" * size})
        return f"{self.name} {self._said} {letter * size}"

    # -- its files ---------------------------------------------------------------------------------------------

    def _create(self) -> int:
        assert self._path is not None
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def _write(self, line: bytes) -> None:
        self._written += len(line)
        if self._path is not None:
            os.write(self._file, line)

    def _rotate_docker(self) -> None:
        self._written = 0
        if self._path is None:
            return
        os.close(self._file)
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, MAX_FILES))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.rename(older)
        self._file = self._create()

    def _rotate_cri(self) -> None:
        """The kubelet's part, between whose rename and the runtime's reopening lines are written."""
        self._rotations += 1
        if self._path is not None:
            self._compress(self._path)
            self._path.rename(self._path.with_name(f"0.log.20260131-10{self._rotations:04d}"))
        for _ in range(self._dice.randrange(20)):
            self._write(self._next_line(self._dice.choice(STREAMS)))
        if self._path is not None:
            os.close(self._file)
            self._file = self._create()

    @staticmethod
    def _compress(path: Path) -> None:
        for rotated in path.parent.glob("0.log.*[0-9]"):
            packed = rotated.with_name(f"{rotated.name}.tmp")
            packed.write_bytes(gzip.compress(rotated.read_bytes(), 1))
            packed.rename(rotated.with_name(f"{rotated.name}.gz"))
            rotated.unlink()
        for surplus in sorted(path.parent.glob("0.log.*.gz"))[: 2 - MAX_FILES]:
            surplus.unlink()


class Runtime:
    """Some containers; `directory` None: only what they say."""

    def __init__(self, kind: Kind, directory: Path | None) -> None:
        self.containers = [Container(kind, directory, number) for number in range(CONTAINERS)]

    def burst(self) -> None:
        for container in self.containers:
            container.burst()

    def finish(self) -> None:
        for container in self.containers:
            container.finish()

    @property
    def records(self) -> Expected:
        return {key: found for container in self.containers for key, found in container.records.items()}


def main(kind: Kind, directory: Path) -> None:
    runtime = Runtime(kind, directory)
    print("ready", flush=True)
    for _ in sys.stdin:
        runtime.burst()
        print(sum(map(len, runtime.records.values())), flush=True)
    runtime.finish()
    print(sum(map(len, runtime.records.values())), flush=True)


if __name__ == "__main__":
    main("docker" if sys.argv[1] == "docker" else "cri", Path(sys.argv[2]))
