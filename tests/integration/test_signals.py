"""SIGTERM and SIGHUP at bad moments: during a reload, with peers that take or say nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.kafka import free_ports
from bench.lab.processes import wait_until
from bench.lab.site import Program
from tests.support.hosts import FILE_STREAM, LIMIT_SECONDS, OddHost, seconds_to_stop
from tests.support.patience import PATIENCE_SECONDS

GRACE_SECONDS, CLOSING_SECONDS, BUSY_SECONDS = 1.0, 3.0, 10.0
"""`stop_grace` of these sites; what closing may take; how much longer a busy machine may take for all of it."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OddHost]:
    with OddHost(tmp_path) as laid_out:
        yield laid_out


def ends_in_time(program: Program) -> int:
    code, seconds = seconds_to_stop(program)
    assert seconds < GRACE_SECONDS + CLOSING_SECONDS + BUSY_SECONDS, program.tail()
    return code


@contextlib.contextmanager
def stopped(program: Program) -> Iterator[None]:
    """A process that neither reads nor writes, but whose connections stay."""
    os.kill(program.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(program.pid, signal.SIGCONT)


@contextlib.contextmanager
def silent_server(address: str) -> Iterator[None]:
    """Takes connections, and nothing from them."""
    host, port = address.split(":")
    held: list[socket.socket] = []
    with socket.create_server((host, int(port))) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


# -- SIGTERM -------------------------------------------------------------------------------------------------------


def test_a_forwarder_ends_though_its_receiver_says_nothing(host: OddHost) -> None:
    with silent_server(host.link_address):
        host.append('{"n":1}')
        host.start(host.forwarder)
        assert wait_until(
            lambda: host.metric(host.forwarder, "logfwd_spool_batches") == 1, LIMIT_SECONDS, every_seconds=0.05
        )
        assert ends_in_time(host.forwarder) == 0


def test_a_forwarder_ends_though_its_receiver_takes_nothing_more(host: OddHost) -> None:
    host.start(host.receiver)
    host.start(host.forwarder)
    host.append('{"n":1}')
    host.wait_acknowledged(1)
    with stopped(host.receiver):
        for number in range(20):
            host.append(*(f'{{"n":{number},"text":"{os.urandom(500).hex()}"}}' for _ in range(2000)))
        assert wait_until(
            lambda: host.metric(host.forwarder, "logfwd_spool_batches") > 5, LIMIT_SECONDS, every_seconds=0.05
        )
        assert ends_in_time(host.forwarder) == 0


def test_a_receiver_ends_though_peers_say_or_take_nothing(host: OddHost) -> None:
    host.start(host.receiver)
    host.start(host.forwarder)
    host.append('{"n":1}')
    host.wait_acknowledged(1)
    address, port = host.link_address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            idle = stack.enter_context(socket.create_connection((address, int(port)), timeout=PATIENCE_SECONDS))
            idle.send(b"\x16\x03\x01")  # half of a record's head
        stack.enter_context(stopped(host.forwarder))
        assert ends_in_time(host.receiver) == 0


def test_a_forwarder_ends_though_its_clients_are_in_the_middle_of_something(host: OddHost) -> None:
    http, syslog = free_ports(2)
    host.site.write_stream("web", f'[source]\ntype = "http"\naddress = "127.0.0.1:{http}"\n')
    host.site.write_stream("log", f'[source]\ntype = "syslog"\ntcp = ["127.0.0.1:{syslog}"]\n')
    host.start(host.receiver)
    host.start(host.forwarder)
    head = f"POST /ingest/web HTTP/1.1\r\nHost: 127.0.0.1:{http}\r\nContent-Length: 100000\r\n"
    beginnings = ((http, b""), (http, b"POST /ing"), (http, f"{head}\r\n{{".encode()), (syslog, b"1000 <14>1 "))
    with contextlib.ExitStack() as stack:
        for port, beginning in beginnings * 10:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS))
            client.sendall(beginning)
        assert ends_in_time(host.forwarder) == 0


def test_a_receiver_ends_though_its_broker_says_nothing(host: OddHost) -> None:
    (broker,) = free_ports(1)
    host.set_sink(f'type = "kafka"\nbrokers = ["127.0.0.1:{broker}"]')
    with silent_server(f"127.0.0.1:{broker}"):
        host.start(host.receiver)
        host.append('{"n":1}')
        host.start(host.forwarder)
        assert ends_in_time(host.receiver) == 0
        assert ends_in_time(host.forwarder) == 0


def test_a_sigterm_during_the_start_ends_the_program(host: OddHost) -> None:
    for program in (host.receiver, host.forwarder):
        program.start()
        program.wait_for("admin listening")
        assert ends_in_time(program) == 0


# -- SIGHUP --------------------------------------------------------------------------------------------------------


def change(host: OddHost, lines: str) -> None:
    """Change a stream, so that a reload has to stop it, which takes its grace: there is no receiver."""
    host.site.write_stream("s", f"{lines}\n{FILE_STREAM}")


def waiting(host: OddHost) -> None:
    host.append('{"n":1}')
    host.start(host.forwarder)
    assert wait_until(
        lambda: host.metric(host.forwarder, "logfwd_spool_batches") == 1, LIMIT_SECONDS, every_seconds=0.05
    )


def test_a_stream_that_is_added_during_a_reload_starts(host: OddHost) -> None:
    waiting(host)
    change(host, "window = 1")
    host.forwarder.signal(signal.SIGHUP)
    host.forwarder.wait_for("batches left in spool")  # the reload has stopped the stream: it has read the files
    host.site.write_stream("t", FILE_STREAM.replace("in.log", "other.log"))
    host.forwarder.signal(signal.SIGHUP)
    assert [event["started"] for event in host.forwarder.wait_for("config reloaded", times=2)] == [[], ["t"]]


def test_streams_that_a_reload_changes_stop_together(host: OddHost) -> None:
    config = host.directory / "logfwd.toml"
    config.write_text(config.read_text().replace('stop_grace = "1s"', 'stop_grace = "4s"'))
    names = [f"t{number}" for number in range(10)]
    for name in names:
        host.append('{"n":1}', name=f"{name}.log")
        host.site.write_stream(name, FILE_STREAM.replace("in.log", f"{name}.log"))
    host.start(host.forwarder)
    assert wait_until(
        lambda: host.metric(host.forwarder, "logfwd_spool_batches") == len(names), LIMIT_SECONDS, every_seconds=0.05
    )
    for name in names:
        host.site.write_stream(name, "window = 1\n" + FILE_STREAM.replace("in.log", f"{name}.log"))
    host.forwarder.signal(signal.SIGHUP)
    host.forwarder.wait_for("config reloaded", seconds=30)  # one after the other they would take 40 s


def test_nothing_starts_after_a_sigterm_that_comes_during_a_reload(host: OddHost) -> None:
    waiting(host)
    for window in range(1, 5):
        change(host, f"window = {window}")
        host.forwarder.signal(signal.SIGHUP)
        for _ in range(window):  # a little later each time
            assert host.answers(host.forwarder)
        assert ends_in_time(host.forwarder) == 0
        events = [event["event"] for event in host.forwarder.events()]
        assert "stream started" not in events[events.index("stopping") :]
        host.start(host.forwarder)
        assert "write-ahead log missing" not in [event["event"] for event in host.forwarder.events()]
    assert host.forwarder.stop() == 0
    host.start(host.receiver)
    host.start(host.forwarder)
    host.wait_acknowledged(1)


@pytest.mark.parametrize("nohup", [False, True], ids=["in a terminal", "with nohup"])
def test_a_foreground_run_ends_with_its_terminal_unless_it_was_asked_to_stay(host: OddHost, nohup: bool) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)  # whatever the tests run under
        os.execv(host.forwarder.argv[0], host.forwarder.argv)
    try:
        shown = b""
        while b"stream started" not in shown:
            shown += os.read(terminal, 65536)
        os.kill(pid, signal.SIGHUP)  # a person's: reloads
        while b"config reloaded" not in shown:
            shown += os.read(terminal, 65536)
        os.close(terminal)
        ended = wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 2.0 if nohup else PATIENCE_SECONDS)
        assert ended is not nohup
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
