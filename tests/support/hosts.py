"""Programs on hosts that are not as they should be: what standard error is, and what it takes to know how they do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.lab.kafka import free_ports
from bench.lab.processes import wait_until
from bench.lab.site import Program, Site
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

LIMIT_SECONDS = 60.0
SITE_GRACE = 'stop_grace = "1s"'
FILE_STREAM = '[source]\ntype = "file"\npaths = ["in.log"]\nscan = "200ms"\n'


class OddHost:
    """A site with one stream `s` over in.log; its addresses are known before it starts, as its logs may be lost."""

    def __init__(self, directory: Path, *, stream: str = FILE_STREAM, limits: str = "") -> None:
        link, receiver_admin, forwarder_admin = free_ports(3)
        self.site = Site(directory)
        self.directory = directory
        self.receiver, self.forwarder = self.site.receiver, self.site.forwarder
        self.receiver_admin, self.forwarder_admin = f"127.0.0.1:{receiver_admin}", f"127.0.0.1:{forwarder_admin}"
        self.link_address = f"127.0.0.1:{link}"
        self.site.make_pki()
        self.set_sink('type = "log"\ndirectory = "log"', limits)
        self.site.write_forwarder([self.link_address])
        self.site.write_stream("s", stream)
        self._set_admin("logfwd.toml", self.forwarder_admin)
        self.site.admin_address = self.forwarder_admin

    def set_sink(self, sink: str, limits: str = "") -> None:
        """Write the receiver's configuration with this [sink]."""
        self.site.write_receiver(sink, listeners={self.link_address: '["hybrid"]'}, more=limits)
        self._set_admin("logreceiver.toml", self.receiver_admin)

    def _set_admin(self, name: str, address: str) -> None:
        config = self.directory / name
        text = config.read_text().replace('stop_grace = "3s"', SITE_GRACE)
        config.write_text(text.replace('[admin]\naddress = "127.0.0.1:0"', f'[admin]\naddress = "{address}"'))

    def start(self, program: Program) -> None:
        """Start a program and wait until it answers."""
        program.start()
        assert wait_until(lambda: self.answers(program), LIMIT_SECONDS, every_seconds=0.05), program.tail()

    def admin(self, program: Program) -> str:
        return self.receiver_admin if program is self.receiver else self.forwarder_admin

    def answers(self, program: Program) -> bool:
        assert program.running(), f"ended with {program.process and program.process.returncode}\n{program.tail()}"
        with contextlib.suppress(NotAnswered):
            return client.ask(self.admin(program), "/healthz", seconds=5.0) is not None
        return False

    def metric(self, program: Program, name: str, *labels: str) -> float:
        """The sum of the samples of a family that have these labels."""
        answer = (client.ask(self.admin(program), "/metrics") or b"").decode()
        lines = [line for line in answer.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))

    def acknowledged(self, stream: str = "s") -> float:
        with contextlib.suppress(NotAnswered):
            return self.metric(self.forwarder, "logfwd_records_total", 'state="acknowledged"', f'stream="{stream}"')
        return 0.0

    def append(self, *lines: str, name: str = "in.log") -> None:
        with (self.directory / name).open("a") as out:
            out.write("".join(f"{line}\n" for line in lines))

    def wait_acknowledged(self, records: int, stream: str = "s") -> None:
        done = wait_until(lambda: self.acknowledged(stream) >= records, LIMIT_SECONDS, every_seconds=0.1)
        assert done, f"{self.acknowledged(stream)} of {records}\n{self.forwarder.tail()}"

    def __enter__(self) -> OddHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.site.stop()


def redirected(program: Program, redirection: str) -> None:
    """Start a program with a redirection of the shell, such as `2>&-`."""
    program.argv = ["sh", "-c", f'exec "$@" {redirection}', "sh", *program.argv]


@contextlib.contextmanager
def stuffed_pipe(path: Path) -> Iterator[int]:
    """A pipe that is full, and that nobody reads but by the descriptor that is given."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while os.write(end, b"." * 4095 + b"\n"):
                pass
        yield end
    finally:
        os.close(end)


def drained(end: int, until: str, seconds: float = LIMIT_SECONDS) -> str:
    """What comes out of a pipe, read until this text is there."""
    text, deadline = b"", time.monotonic() + seconds
    while until.encode() not in text:
        assert time.monotonic() < deadline, text[-2000:].decode(errors="replace")
        try:
            text += os.read(end, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    return text.decode()


def seconds_to_stop(program: Program) -> tuple[int, float]:
    """SIGTERM: the exit code, and how long it took."""
    started = time.monotonic()
    code = program.stop(seconds=LIMIT_SECONDS)
    seconds = time.monotonic() - started
    print(f"{Path(program.argv[-4]).name} ended with {code}, {seconds:.2f} s after SIGTERM")
    return code, seconds
