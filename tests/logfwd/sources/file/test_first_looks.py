"""Container logs that rotate around the very first look at them, with kills at that moment: records stay whole.

The history ends before `rotated_wait` has passed: after that, what is open in a rotated file is a record of its own.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from tests.logfwd.sources.file.follow_harness import Reader, append
from tests.logfwd.sources.file.test_joined import cri, docker, messages, rotate

HISTORIES = int(os.environ.get("HISTORIES", "50"))


class Container:
    """Writes numbered messages in parts; the runtime rotates its log."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path, self.dice = path, dice
        self.make = dice.choice([cri_line, docker_line])
        self.is_dated = dice.random() < 0.5
        self.begun = self.parts = self.rotations = 0
        self.open = ""
        self.messages: list[str] = []

    def write(self) -> None:
        for _ in range(self.dice.choice([1, 1, 3, 8])):
            self.write_part(is_last=self.dice.random() < 0.5)

    def write_part(self, *, is_last: bool) -> None:
        part = f"{self.parts}-"
        if not self.open:
            part = f"{self.begun}:{part}"
            self.begun += 1
        self.open += part
        self.parts += 1
        append(self.path, self.make(self.parts, part, is_last=is_last))
        if is_last:
            self.messages.append(self.open)
            self.open = ""

    def rotate(self) -> None:
        if not self.path.exists():
            return
        self.rotations += 1
        if self.is_dated:
            rotate(self.path, f"0.log.20260131-{self.rotations:06d}")
        else:
            for index in range(self.rotations, 0, -1):
                if (old := Path(f"{self.path}.{index}")).exists():
                    old.rename(f"{self.path}.{index + 1}")
            rotate(self.path, "0.log.1")
        if self.dice.random() < 0.7:
            self.path.touch()


def cri_line(number: int, part: str, *, is_last: bool) -> bytes:
    return cri(number, "stdout", "F" if is_last else "P", part)


def docker_line(number: int, part: str, *, is_last: bool) -> bytes:
    return docker(number, "stdout", part + "\n" * is_last)


STEPS = ("write", "rotate", "scan", "read", "commit", "kill", "turn")


def take(step: str, container: Container, reader: Reader) -> None:
    match step:
        case "write":
            container.write()
        case "rotate":
            container.rotate()
        case "scan":
            reader.scan()
        case "read":
            reader.read(container.dice.choice([1, 2, 5]))
        case "commit":
            reader.commit()
        case "kill":
            reader.restart()
        case "turn":
            reader.turn(0.02)


def test_logs_that_rotate_around_the_first_look_lose_repeat_and_join_nothing_wrongly(tmp_path: Path) -> None:
    for seed in range(HISTORIES):
        dice, folder = random.Random(seed), tmp_path / str(seed)
        folder.mkdir()
        container = Container(folder / "0.log", dice)
        for _ in range(dice.randrange(4)):
            dice.choice([container.write, container.write, container.rotate])()
        reader = Reader(
            folder / dice.choice(["0.log", "*.log"]),
            format=container.make.__name__.removesuffix("_line"),
            block_bytes=dice.choice([64, 300, 4096]),
            max_record_bytes=dice.choice([300, 4096]),
            max_open_files=dice.choice([1, 2, 256]),
        )
        before = container.begun
        history = [dice.choice(STEPS) for _ in range(dice.randrange(3, 14))]
        for step in history:
            take(step, container, reader)
            if not reader.scans:  # rotated files from before the first scan count as read
                before = container.begun
        container.write_part(is_last=True)
        for seconds in (0.02, 0.02, 0.02, 3.0, 3.0, 3.0):
            reader.turn(seconds)
        reader.restart()
        reader.turn()
        got, old, new = messages(reader), container.messages[:before], container.messages[before:]
        parts = got[: len(got) - len(new)]  # of the first message, the beginning may count as read
        assert got[len(parts) :] == new, (seed, history)
        assert all(any(each.endswith(part) for each in old) for part in parts), (seed, history)
        reader.follower.close()
        shutil.rmtree(folder)
