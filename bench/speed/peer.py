"""What `logbench peers` compares: two programs that carry a file to a topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from bench.lab.site import Program


class Peer:
    """The sender reads `input`, the receiver writes to the topic; neither runs yet."""

    promise: ClassVar[str]
    receiver: Program
    sender: Program

    def __init__(self, directory: Path) -> None:
        self.input = directory / "in" / "http.log"
        self.input.parent.mkdir(parents=True)

    def line_of(self, value: bytes) -> bytes:
        """The line of the input that a record in Kafka holds."""
        return value


def write_config(work: Path, config: dict[str, object]) -> Path:
    """For a program that reads YAML, which JSON is."""
    path = work / "config.yaml"
    path.write_text(json.dumps(config))
    return path
