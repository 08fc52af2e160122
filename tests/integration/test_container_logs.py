"""Logs of Docker and Kubernetes, as far as Kafka: written, split into parts, rotated and compressed at full speed by
processes of their own, while the forwarder is killed with kill -9 and started again. Every record once, in order.

They rotate around the forwarder's first look, too. What is rotated by then is not read, so the first record of a stream
may lack its beginning; after it none is missing.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.processes import wait_until
from bench.lab.site import Site
from tests.support.chaos import CHAOS
from tests.support.container_runtime import CONTAINERS, Expected, Kind, Runtime, path_of
from tests.support.to_kafka import accepted, start

pytestmark = pytest.mark.kafka
KINDS: tuple[Kind, ...] = ("docker", "cri")
BURSTS = 40 if CHAOS else 6
PATHS = {"docker": "containers/*/*-json.log", "cri": "pods/*/*/*.log"}


class Writer:
    """A container runtime as a process; it ends with the block, or with this process."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        argv = [sys.executable, "-m", "tests.support.container_runtime", kind, str(directory)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout

    def __enter__(self) -> Writer:
        assert self._out.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._out.close()
        self.process.kill()
        self.process.wait()

    def begin(self) -> None:
        """One burst; returns at once."""
        self._in.write("\n")
        self._in.flush()

    def written(self) -> int:
        """Waits for the end of the burst; the number of whole records so far."""
        return int(self._out.readline())

    def end(self) -> int:
        """Finish what is open; the number of records."""
        self._in.close()
        return self.written()


def expected(kind: Kind, bursts: int = BURSTS) -> Expected:
    runtime = Runtime(kind, None)
    for _ in range(bursts):
        runtime.burst()
    runtime.finish()
    return runtime.records


def stored(kafka: Kafka, topic: str, kind: Kind, directory: Path) -> Expected:
    containers = {str(path_of(directory, kind, number)): f"c{number}" for number in range(CONTAINERS)}
    found: Expected = defaultdict(list)
    for value in read_topic(kafka.bootstrap, topic):
        record = json.loads(value)
        found[containers[record.pop("file")], record["stream"]].append(record)
    return found


def whole(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """What was found, without the end of a record whose beginning was rotated before the first look."""
    assert 0 < len(found) <= len(wanted)
    first, cut = wanted[-len(found)], found[0]
    if cut == first:
        return found
    text = first.get("message") or json.dumps({name: first[name] for name in ("container", "n", "padding")})
    assert text.endswith(cut["message"].lstrip("\ufffd"))
    return found[1:]


def wait_until_accepted(site: Site, stream: str, records: int) -> None:
    done = wait_until(lambda: accepted(site, stream) >= records, 60, every_seconds=0.05)
    assert done, f"{accepted(site, stream)} of {records}\n{site.forwarder.tail()}"


def test_container_logs_are_in_kafka_once_however_they_rotate_and_the_forwarder_is_killed(
    tmp_path: Path, kafka: Kafka, topic_name: str
) -> None:
    streams = {kind: f"{topic_name}-{kind}" for kind in KINDS}
    source = '[source]\ntype = "file"\npaths = ["{}"]\nformat = "{}"\nscan = "50ms"\npath_field = "file"\n'
    dice = random.Random(2)
    with Site(tmp_path) as site, contextlib.ExitStack() as stack:
        writers = {kind: stack.enter_context(Writer(kind, tmp_path)) for kind in KINDS}
        start(site, kafka, {streams[kind]: source.format(PATHS[kind], kind) for kind in KINDS})
        time.sleep(dice.random() * 0.5)
        missed = dict.fromkeys(KINDS, 0)
        for burst in range(BURSTS):
            for writer in writers.values():
                writer.begin()
            for _ in range(dice.choice((1, 1, 2))):
                time.sleep(dice.random() * 0.5)  # at any moment
                site.forwarder.kill()
                site.start_forwarder()
            written = {kind: writer.written() for kind, writer in writers.items()}
            if not burst:
                assert site.wait_until_drained(list(streams.values()), 60), site.streams()
                missed = {kind: written[kind] - accepted(site, stream) for kind, stream in streams.items()}
            for kind, stream in streams.items():
                wait_until_accepted(site, stream, written[kind] - missed[kind])
        counts = {kind: writer.end() for kind, writer in writers.items()}
        for kind, count in counts.items():
            wait_until_accepted(site, streams[kind], count - missed[kind])
        assert site.wait_until_drained(list(streams.values()), 60), site.streams()
        site.stop()
    for kind, stream in streams.items():
        found, wanted, first = stored(kafka, stream, kind, tmp_path), expected(kind), expected(kind, 1)
        print(f"{kind}: {counts[kind]} records written, {sum(map(len, found.values()))} in Kafka")
        assert sum(map(len, wanted.values())) == counts[kind]
        assert found.keys() == wanted.keys()
        for container, records in wanted.items():
            kept = whole(found[container], records)
            assert kept == records[-len(kept) :], (kind, container)
            assert len(kept) >= len(records) - len(first[container]), (kind, container)
