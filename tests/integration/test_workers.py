"""`logreceiver run --workers`: several processes behind one port, any of which may be killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.site import Site
from logreceiver.commands.posture import ask

WORKERS = 2
STREAMS = [f"part-{number}" for number in range(8)]
RECORDS = 5_000


def free_ports() -> tuple[int, int]:
    """One for links, and one that has a free neighbour."""
    with socket.create_server(("localhost", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def write_receiver(site: Site, broker: str) -> str:
    port, admin = free_ports()
    site.make_pki()
    sink = f'type = "kafka"\nbrokers = ["{broker}"]\ncreate_topics = true'
    site.write_receiver(sink, listeners={f"localhost:{port}": '["hybrid"]'})
    config = site.directory / "logreceiver.toml"
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{admin}"))
    site.receiver.argv += ["--workers", str(WORKERS)]
    return f"localhost:{port}"


def workers_of(site: Site) -> list[int]:
    children = Path(f"/proc/{site.receiver.pid}/task/{site.receiver.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def write_half(site: Site, lines: list[bytes]) -> None:
    for stream in STREAMS:
        with (site.directory / f"{stream}.log").open("ab") as out:
            out.write(b"".join(line + b"\n" for line in lines))


@pytest.mark.kafka
def test_links_are_spread_and_a_killed_worker_is_restarted(tmp_path: Path, kafka: Kafka) -> None:
    lines = list(generate_http(RECORDS, seed=9))
    with Site(tmp_path / "site") as site:
        site.write_forwarder([write_receiver(site, kafka.bootstrap)])
        site.receiver.start()
        site.receiver.wait_for("admin listening", times=WORKERS)
        for stream in STREAMS:
            site.write_stream(stream, f'[source]\ntype = "file"\npaths = ["{stream}.log"]\n')
        write_half(site, lines[: RECORDS // 2])
        site.start_forwarder()
        assert site.wait_until_acknowledged(RECORDS // 2, STREAMS, seconds=60), site.forwarder.tail()
        admins = [str(event["address"]) for event in site.receiver.wait_for("admin listening")]
        posture = ask(admins)
        assert (posture.open_links, len(posture.streams)) == (len(STREAMS), len(STREAMS))
        killed, *others = workers_of(site)
        os.kill(killed, signal.SIGKILL)
        write_half(site, lines[RECORDS // 2 :])
        assert site.wait_until_acknowledged(RECORDS, STREAMS, seconds=60), site.forwarder.tail()
        site.receiver.wait_for("admin listening", times=WORKERS + 1)
        assert len(workers_of(site)) == WORKERS
        assert set(others) <= set(workers_of(site))
        assert site.forwarder.stop() == 0
        assert site.receiver.stop() == 0
    for stream in STREAMS:
        assert list(read_topic(kafka.bootstrap, stream)) == lines, stream


@pytest.mark.kafka
def test_workers_end_when_their_parent_was_killed(tmp_path: Path, kafka: Kafka) -> None:
    with Site(tmp_path / "site") as site:
        write_receiver(site, kafka.bootstrap)
        site.receiver.start()
        site.receiver.wait_for("admin listening", times=WORKERS)
        orphans = workers_of(site)
        site.receiver.kill()
        deadline = time.monotonic() + 20
        while any(is_running(pid) for pid in orphans):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.kafka
def test_workers_that_cannot_start_end_the_receiver_with_their_exit_code(tmp_path: Path, kafka: Kafka) -> None:
    with Site(tmp_path / "site") as site:
        write_receiver(site, kafka.bootstrap)
        (site.directory / "pki" / "grant.key").write_text("no key")
        site.receiver.start()
        deadline = time.monotonic() + 20
        while site.receiver.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert site.receiver.wait() == 78
        assert Counter(line.strip() for line in site.receiver.tail().splitlines() if "grant" in line)


def test_the_embedded_log_and_port_0_are_for_a_single_process(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        site.receiver.argv += ["--workers", "2"]
        site.receiver.start()
        assert site.receiver.wait() == 2
        assert "only one process at a time may use the sink" in site.receiver.tail()
