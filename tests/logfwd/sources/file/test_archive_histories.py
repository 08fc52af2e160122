"""Histories of a log that is written, rotated and compressed at random, with kills in between."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_archives import pack, turns
from tests.logfwd.sources.file.test_rotation import expected

HISTORIES = int(os.environ.get("HISTORIES", "15"))


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("delayed", [False, True])
def test_every_history_of_rotations_that_compress_gives_each_line_once(
    tmp_path: Path, pattern: str, delayed: bool
) -> None:
    for seed in range(HISTORIES):
        dice, log = random.Random(seed), tmp_path / str(seed) / "app.log"
        log.parent.mkdir()
        reader = Reader(
            log.parent / pattern,
            compressed="read",
            max_open_files=dice.choice([1, 256]),
            block_bytes=dice.choice([300, 4000, 1 << 20]),
            max_record_bytes=200,
        )
        reader.turn()
        number = 0
        steps: list[str] = []
        for _ in range(30):
            step = dice.choice(["write", "write", "look", "look", "read", "rotate", "kill"])
            steps.append(step)
            if step == "write":
                count = dice.choice([2, 30, 200])
                append(log, numbered(number, number + count))
                number += count
            elif step == "look":
                turns(reader, dice.choice([1, 3]))
            elif step == "read":
                reader.scan()
                reader.read(dice.choice([1, 3]))
                if dice.random() < 0.5:
                    reader.commit()
            elif step == "kill":
                reader.restart()
            elif log.exists():
                if delayed and (before := Path(f"{log}.1")).exists():
                    pack(before)
                for index in range(40, 0, -1):
                    if (old := Path(f"{log}.{index}.gz")).exists():
                        old.rename(f"{log}.{index + 1}.gz")
                log.rename(f"{log}.1")
                if not delayed:
                    pack(Path(f"{log}.1"))
        turns(reader, 40)
        reader.restart()
        turns(reader, 4)
        reader.follower.close()
        assert reader.lines == expected((0, number)), (seed, steps)


def test_a_new_file_waits_for_one_that_was_compressed_while_another_compressed_one_is_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    reader = Reader(log, compressed="read", block_bytes=610)
    reader.turn()
    first = 0

    def write_and_compress(name: str, lines: int) -> None:
        nonlocal first
        (tmp_path / name).write_bytes(gzip.compress(numbered(first, first + lines)))
        first += lines

    write_and_compress("app.log.3.gz", 100)
    append(log, numbered(100, 110))
    while not any(tail.plain for tail in reader.follower._files.opened.tails):
        reader.now += 1
        reader.scan()
        reader.follower.end_due(reader.now)
    reader.read(2)
    log.rename(tmp_path / "app.log.2")
    first = 110
    write_and_compress("app.log.1.gz", 20)
    append(log, numbered(130, 140))
    for _ in range(12):
        reader.turn(1)
    assert reader.lines == numbered(0, 140).splitlines()
