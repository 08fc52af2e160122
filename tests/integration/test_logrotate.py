"""Debian's logrotate in each of its modes, at full speed, with the forwarder killed and stopped in between."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from bench.lab.oracle import Finding, judge
from bench.lab.site import Site, command
from tests.support.chaos import CHAOS

LINES = 200
ROUNDS = 40 if CHAOS else 4
MODES = {
    "create": "create",
    "copytruncate": "copytruncate",
    "dateext": "create\ndateext\ndateformat -%Y%m%d-%s",
    "compress": "create\ncompress",
    "compressread": "create\ncompress",
    "delaycompress": "create\ncompress\ndelaycompress",
    "olddir": "create\nolddir old-olddir",
    "extension": "create\nextension .log",
}
ROTATED = {"olddir": '["old-olddir/*"]', "extension": '["extension.*.log"]'}


class Writer(threading.Thread):
    """A program that writes numbered lines as fast as it can, and opens its log anew when it is told to."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self.log, self.written = log, 0
        self.paused, self.ended, self.reopen = threading.Lock(), threading.Event(), threading.Event()

    def run(self) -> None:
        file = self.log.open("ab", buffering=0)
        while not self.ended.is_set():
            with self.paused:
                if self.reopen.is_set():
                    file.close()
                    file = self.log.open("ab", buffering=0)
                    self.reopen.clear()
                numbers = range(self.written, self.written + LINES)
                file.write(b"".join(b'{"n":%d,"stream":"%s"}\n' % (each, self.log.name.encode()) for each in numbers))
                self.written += LINES
            time.sleep(0.02)
        file.close()


class Logrotate:
    """One stream's log, its writer, and its rotation."""

    def __init__(self, root: Path, folder: Path, mode: str) -> None:
        self.root, self.folder, self.mode = root, folder, mode
        self.config = folder / f"{mode}.conf"
        self.config.write_text(f"{folder}/{mode}.log {{\n{MODES[mode]}\nrotate 1000\nmissingok\n}}\n")
        (folder / "old-olddir").mkdir(exist_ok=True)
        self.writer = Writer(folder / f"{mode}.log")
        self.writer.log.touch()

    def rotate(self) -> bool:
        """One rotation. A copy loses what is written between copy and truncate, and a file that is compressed at once
        what is written to it afterwards, so their writers wait.
        """
        found = [str(path) for path in self.root.rglob("*.so*")]
        libraries = os.pathsep.join(dict.fromkeys(os.path.dirname(path) for path in found))
        program, state = self.root / "usr/sbin/logrotate", self.folder / f"{self.mode}.state"
        argv = [str(program), "-f", "-s", str(state), str(self.config)]
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        waits = self.mode in ("copytruncate", "compress", "compressread")
        if waits:
            self.writer.paused.acquire()
        try:
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)
        finally:
            self.writer.reopen.set()
            if waits:
                self.writer.paused.release()
        if self.mode != "dateext":  # two rotations within a second would have one name: it skips the second one
            assert done.returncode == 0, done.stderr
        return done.returncode == 0


def wait_for(site: Site, writer: Writer, stream: str) -> None:
    with writer.paused:
        assert site.wait_until_acknowledged(writer.written, [stream], 60), (stream, site.streams().get(stream))


def test_logrotate_in_each_of_its_modes_loses_and_repeats_nothing(tmp_path: Path, logrotate_root: Path) -> None:
    dice, logs = random.Random(7), tmp_path / "logs"
    logs.mkdir()
    rotations: Counter[str] = Counter()
    findings: list[Finding] = []
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "sink"', listeners={"127.0.0.1:0": '["hybrid"]'})
        site.write_forwarder(site.start_receiver())
        streams = {mode: Logrotate(logrotate_root, logs, mode) for mode in MODES}
        for mode in MODES:
            rotated = ROTATED.get(mode, "[]").replace('["', f'["{logs}/')
            source = f'[source]\ntype = "file"\npaths = ["{logs}/{mode}.log"]\nrotated = {rotated}\nscan = "100ms"\n'
            site.write_stream(mode, source + ('compressed = "read"\n' if mode == "compressread" else ""))
        site.start_forwarder()
        for mode, stream in streams.items():
            stream.writer.start()
            wait_for(site, stream.writer, mode)  # what was rotated before the first look is not read
        for turn in range(ROUNDS):
            for mode, stream in streams.items():
                rotations[mode] += stream.rotate()
                time.sleep(dice.random() * 0.1)
            for mode in ("compress", "delaycompress"):
                # what was made and compressed before anybody looked is not read unless compressed = "read"
                wait_for(site, streams[mode].writer, mode)
            if turn % 2:
                site.forwarder.kill()
                for mode, stream in streams.items():
                    rotations[mode] += stream.rotate()
                if turn % 4 == 3:
                    site.start_forwarder()
                    site.forwarder.kill()
                site.start_forwarder()
                for mode in ("compress", "delaycompress"):
                    wait_for(site, streams[mode].writer, mode)
        for stream in streams.values():
            stream.writer.ended.set()
            stream.writer.join()
        assert site.wait_until_drained(list(MODES), 90), site.streams()
        site.stop()
    for mode, stream in streams.items():
        argv = [command("logreceiver"), "cat", mode, "-d", str(tmp_path / "sink")]
        stored = subprocess.run(argv, capture_output=True, check=True, timeout=300).stdout.splitlines()
        finding = judge(mode, stream.writer.written, stored, source=f"{mode}.log")
        print(f"{mode}: {rotations[mode]} rotations, {finding}")
        findings.append(finding)
    assert [finding for finding in findings if not finding.exact] == []
