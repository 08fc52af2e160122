"""Several workers take a new configuration together or not at all; they need no broker for that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.site import Site, command
from tests.integration.test_workers import WORKERS, workers_of, write_receiver

DENY = '[[deny]]\nidentity = "spiffe://demo/other"\n'
PATIENCE_SECONDS = 60.0


class Receiver:
    """Two workers and their parent, with a control socket."""

    def __init__(self, directory: Path) -> None:
        self.site = Site(directory)
        write_receiver(self.site, "127.0.0.1:1")
        self.config = self.site.directory / "logreceiver.toml"
        self.good = f'control_socket = "control.sock"\n{self.config.read_text()}'
        self.config.write_text(self.good)
        self.site.receiver.start()
        self.site.receiver.wait_for("admin listening", times=WORKERS)

    def asking(self, *options: str) -> subprocess.Popen[str]:
        argv = [command("logreceiver"), "reload", "-c", str(self.config), "--json", *options]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def reload(self, *options: str) -> tuple[int, dict[str, Any]]:
        return self.answer(self.asking(*options))

    @staticmethod
    def answer(asking: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
        output, _ = asking.communicate(timeout=PATIENCE_SECONDS)
        return asking.returncode, json.loads(output)

    def digests(self) -> list[str]:
        """What each worker uses."""
        code, answer = self.reload("--check")
        assert code == 0, answer
        return [row["in_use"] for row in answer["workers"]]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path / "site")
    try:
        yield made
    finally:
        made.site.stop()


def test_a_reload_reaches_every_worker_and_one_that_is_started_again_follows(receiver: Receiver) -> None:
    program = receiver.site.receiver
    receiver.config.write_text(receiver.good + DENY)
    code, answer = receiver.reload()
    assert (code, answer["outcome"], answer["taken"]) == (0, "taken", ["deny"])
    assert [(row["worker"], row["outcome"], row["in_use"]) for row in answer["workers"]] == [
        (number, "taken", answer["digest"]) for number in range(WORKERS)
    ]
    program.wait_for("config reloaded", times=WORKERS)
    receiver.config.write_text(receiver.good.replace("[[allow]]", "[[alow]]"))
    code, answer = receiver.reload()
    assert (code, answer["outcome"]) == (78, "refused")
    for pid in workers_of(receiver.site):
        os.kill(pid, signal.SIGKILL)
    program.wait_for("admin listening", times=2 * WORKERS)  # though the file cannot be used now
    receiver.config.write_text(receiver.good + DENY)
    assert receiver.reload("--check")[1]["taken"] == [], "it began with what the others had taken"
    receiver.config.write_text(receiver.good)
    os.kill(program.pid, signal.SIGHUP)
    program.wait_for("config reloaded", times=2 * WORKERS)
    assert program.stop() == 0


def test_a_worker_that_dies_while_it_reads_has_the_other_keep_what_it_uses(receiver: Receiver) -> None:
    before = receiver.digests()
    assert len(set(before)) == 1
    keys = receiver.site.directory / "slow.key"
    os.mkfifo(keys)  # as on a disk that does not answer
    receiver.config.write_text(receiver.good.replace('"pki/grant.key"', '"slow.key"') + DENY)
    asking = receiver.asking()
    receiver.site.receiver.wait_for("act requested", times=2)
    killed = workers_of(receiver.site)[1]
    os.kill(killed, signal.SIGKILL)
    code, answer = receiver.answer(asking)
    assert (code, answer["outcome"]) == (1, "refused")
    assert "it ended meanwhile" in answer["reason"]
    (rejected,) = receiver.site.receiver.wait_for("config rejected")
    assert rejected["reason"] == answer["reason"]
    receiver.site.receiver.wait_for("admin listening", times=WORKERS + 1)
    receiver.config.write_text(receiver.good)
    assert receiver.digests() == before
