"""A receiver that restarts: forwarders wait in the kernel's queue, and go on where they were."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.handover import handing_over
from bench.lab.kafka import free_ports
from bench.lab.site import Site, command
from tests.support.patience import PATIENCE_SECONDS

SOURCE = '[source]\ntype = "file"\npaths = ["in.log"]\n'
SINK = 'type = "log"\ndirectory = "log"'
ROUNDS = 3


@contextlib.contextmanager
def site_at(directory: Path, port: int) -> Iterator[Site]:
    with Site(directory) as site:
        site.make_pki()
        site.write_receiver(SINK, listeners={f"127.0.0.1:{port}": '["hybrid"]'})
        site.write_forwarder([f"127.0.0.1:{port}"])
        site.write_stream("app", SOURCE)
        yield site


def hand_over(site: Site, sock: socket.socket) -> None:
    """From now on its receiver is started as by a service manager that keeps this socket."""
    site.receiver.argv[:] = handing_over(sock.fileno(), site.receiver.argv)
    site.receiver.descriptors = [sock.fileno()]


def stored(site: Site) -> list[int]:
    argv = [command("logreceiver"), "cat", "-d", str(site.directory / "log"), "app"]
    lines = subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout.splitlines()
    return [json.loads(line)["n"] for line in lines]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_over_a_restart_a_handed_over_port_refuses_nobody_and_each_record_arrives_once(
    tmp_path: Path, end: str
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock, site_at(tmp_path, sock.getsockname()[1]) as site:
        hand_over(site, sock)
        assert site.start_receiver() == [f"127.0.0.1:{sock.getsockname()[1]}"]
        site.start_forwarder()
        written = 0
        with (tmp_path / "in.log").open("a", buffering=1) as out:
            for number in range(ROUNDS):
                for _ in range(20):
                    out.write(f'{{"n":{written}}}\n')
                    written += 1
                assert site.wait_until_acknowledged(written, ["app"], PATIENCE_SECONDS)
                (site.receiver.stop if end == "stop" else site.receiver.kill)()
                out.write(f'{{"n":{written}}}\n')
                written += 1
                waiting = socket.create_connection(sock.getsockname(), timeout=5)  # nobody serves, nobody is refused
                site.start_receiver()
                waiting.close()
                site.forwarder.wait_for("link opened", times=number + 2, seconds=PATIENCE_SECONDS)
        assert site.wait_until_acknowledged(written, ["app"], PATIENCE_SECONDS)
        failures = [event["detail"] for event in site.forwarder.events() if event["event"] == "link failed"]
        assert not [text for text in failures if "refused" in text]
        site.stop()
        assert stored(site) == list(range(written))


def test_a_socket_that_fits_no_listener_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, site_at(tmp_path, free_ports(1)[0]) as site:
        hand_over(site, sock)
        site.start_receiver()
        (event,) = site.receiver.wait_for("socket not used")
        assert (event["name"], event["address"]) == ("links", str(sock.getsockname()))


def test_a_receiver_takes_connections_before_it_can_serve_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with site_at(tmp_path, port) as site:
        key = tmp_path / "pki" / "grant.key"
        kept = key.rename(key.with_suffix(".kept"))
        os.mkfifo(key, 0o600)
        held = os.open(key, os.O_RDWR)  # who reads the key waits, and cannot serve, until it is written
        site.receiver.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline, site.receiver.tail()
        assert not list(site.receiver.events())
        os.write(held, kept.read_bytes())
        kept.replace(key)
        os.close(held)
        site.receiver.wait_for("listening")
        site.start_forwarder()
        (tmp_path / "in.log").write_text('{"n":0}\n')
        assert site.wait_until_acknowledged(1, ["app"], PATIENCE_SECONDS)


def test_a_stopping_receiver_leaves_new_links_to_its_successor(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, site_at(tmp_path, sock.getsockname()[1]) as site:
        hand_over(site, sock)
        site.start_receiver()
        site.start_forwarder()
        site.forwarder.wait_for("link opened")
        site.receiver.stop()
        time.sleep(0.5)  # the forwarder's next link waits
        assert not [event for event in site.receiver.events() if event["event"] == "link refused"]
        site.start_receiver()
        site.forwarder.wait_for("link opened", times=2)
