"""The http source as a process: killed while clients send, with Kafka away, and under clients that mean harm."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
import resource
import selectors
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from bench.lab.kafka import Kafka, free_ports
from bench.lab.oracle import read_topic
from bench.lab.processes import wait_until
from bench.lab.site import Site
from streams.config.units import MIB
from tests.support.chaos import CHAOS
from tests.support.http_clients import Client, Reply
from tests.support.patience import PATIENCE_SECONDS
from tests.support.to_kafka import rss_bytes, start

KILLS, CLIENTS = (4, 3) if CHAOS else (2, 2)
"""Of either kind: with a key, and without."""


def free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@dataclass
class Sender:
    """A client that numbers its records, and sends each request until it is answered 200, or only once."""

    address: str
    stream: str
    number: int
    with_key: bool = True
    insists: bool = True
    sizes: tuple[int, ...] = (1, 1, 1, 1, 10, 10, 10, 300, 300, 30_000)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0

    def run(self, until: threading.Event) -> None:
        dice = random.Random(self.number)
        with contextlib.ExitStack() as stack:
            for request in range(1_000_000):
                if until.is_set():
                    return
                ids = [f"{self.number}-{request}-{record}" for record in range(dice.choice(self.sizes))]
                body = b"".join(b'{"id":"%s","padding":"%s"}\n' % (each.encode(), b"x" * 40) for each in ids)
                headers = {"idempotency_key": str(uuid.UUID(int=dice.getrandbits(128)))} if self.with_key else {}
                if dice.random() < 0.3:
                    body, headers["content_encoding"] = gzip.compress(body, 1), "gzip"
                is_stored = self._send(stack, body, headers)
                (self.accepted if is_stored else self.refused).extend(ids)

    def _send(self, stack: contextlib.ExitStack, body: bytes, headers: dict[str, str]) -> bool:
        while True:
            reply: Reply | None = None
            try:
                client = stack.enter_context(Client(self.address))
                reply = client.post(f"/ingest/{self.stream}", body, **headers)
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
            finally:
                stack.close()
            if reply is not None:
                self.answers[reply.status] += 1
                if reply.status == 200:
                    return True
                assert reply.status in (429, 503), reply
                if not self.insists:
                    time.sleep(0.02)
                    return False
            time.sleep(0.05)


@contextlib.contextmanager
def sending(*senders: Sender) -> Iterator[None]:
    """They send until the end of the block, and finish their last request after it."""
    until = threading.Event()
    threads = [threading.Thread(target=sender.run, args=(until,)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        until.set()
        for thread in threads:
            thread.join(120)


def ids_in(kafka: Kafka, topic: str) -> Counter[str]:
    return Counter(json.loads(record)["id"] for record in read_topic(kafka.bootstrap, topic))


@pytest.mark.kafka
def test_kill_9_while_clients_send_and_try_again(kafka: Kafka, tmp_path: Path, topic_name: str) -> None:
    """With a key, each record is in Kafka once; without one, none is missing."""
    once, other, address = f"{topic_name}-once", f"{topic_name}-other", free_address()
    source = f'[source]\ntype = "http"\naddress = "{address}"\n'
    with Site(tmp_path / "site") as site:
        start(site, kafka, {once: source, other: source})
        keyed = [Sender(address, once, number) for number in range(CLIENTS)]
        others = [Sender(address, other, number, with_key=False) for number in range(CLIENTS)]
        dice = random.Random(1)
        with sending(*keyed, *others):
            for _ in range(KILLS):
                time.sleep(1 + dice.random())
                site.forwarder.kill()
                site.start_forwarder()
            time.sleep(1)
        assert site.wait_until_drained([once, other], 90), site.streams()
        site.stop()
        stored_once, at_least_once = ids_in(kafka, once), ids_in(kafka, other)
    assert all(sender.accepted for sender in keyed)
    assert sum(sender.unanswered for sender in keyed) > 0, "no client was disturbed"
    assert stored_once == Counter(record for sender in keyed for record in sender.accepted)
    expected = Counter(record for sender in others for record in sender.accepted)
    assert set(at_least_once) == set(expected)
    assert sum(at_least_once.values()) >= sum(expected.values())


# -- harm ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HEAD = b"POST /ingest/web HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
NOTHING_YET, WITHOUT_END = b"", HEAD + b"X-Padding: "
HALF_A_BODY = HEAD + b"Content-Length: 1000000\r\n\r\n[" + b"1," * 1000
CASES = {"nothing": NOTHING_YET, "half a head": HEAD, "half a body": HALF_A_BODY}


def harmless(address: str, seconds: list[float]) -> None:
    """A client of another listener that does as it should."""
    with Client(address) as client:
        for _ in range(50):
            begun = time.monotonic()
            assert client.post("/ingest/good", b'{"a":1}\n').status == 200
            seconds.append(time.monotonic() - begun)


def answers_on(connections: list[socket.socket], seconds: float) -> Counter[str]:
    """The status of what each connection was answered, "" for none, until all are closed or the time is up."""
    found, received = Counter[str](), dict.fromkeys(connections, b"")
    by_number = {connection.fileno(): connection for connection in connections}
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                connection = by_number[key.fd]
                try:
                    data = connection.recv(4096)
                except OSError:
                    data = b""
                received[connection] += data
                if not data:
                    selector.unregister(connection)
                    found[received[connection][9:12].decode()] += 1
        found["open"] = len(selector.get_map())
    return found


def test_clients_that_mean_harm_get_typed_answers_and_little_memory(tmp_path: Path, many_files: None) -> None:
    address, good = free_address(), free_address()
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_forwarder(["localhost:1"])
        limits = 'header = "3s"\nbody = "4s"\nmax_connections = 200\n'
        site.write_stream("web", f'[source]\ntype = "http"\naddress = "{address}"\n{limits}')
        site.write_stream("good", f'[source]\ntype = "http"\naddress = "{good}"\n')
        site.start_forwarder()
        site.forwarder.wait_for("http listening", times=2)
        seconds: list[float] = []
        with Client(good) as client:
            assert wait_until(lambda: client.post("/ingest/good", b"{}\n").status == 200, PATIENCE_SECONDS)
        harmless(good, seconds)
        before = rss_bytes(site)
        for body, headers, status in (
            (gzip.compress(bytes(512 * MIB), 1), {"content_encoding": "gzip"}, 413),
            (zstandard.compress(bytes(512 * MIB)), {"content_encoding": "zstd"}, 413),
            (b"[" * 10_000_000, {"content_type": "application/json"}, 400),
            (b'{"a":' * 100_000, {"content_type": "application/json"}, 400),
            (b"x" * (64 * MIB), {}, 413),
            (iter([b"x"] * 5000), {}, 400),
            (b"{}", {"x_padding": "x" * 20_000}, 431),
        ):
            with Client(address) as client:
                reply = client.post("/ingest/web", body, **headers)
                assert reply.status == status, (reply, headers)
                assert reply.json["error"]
        host, _, port = address.rpartition(":")
        for name, text in CASES.items():
            begun = time.monotonic()
            connections = [socket.create_connection((host, int(port))) for _ in range(1000)]
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(text)
            other = threading.Thread(target=harmless, args=(good, seconds))
            other.start()
            found = answers_on(connections, PATIENCE_SECONDS)
            let_in = 200 * int((time.monotonic() - begun) / 3)  # at most: each stays for 3 s
            other.join()
            for connection in connections:
                connection.close()
            assert found["open"] == 0, (name, found)
            assert found["503"] >= 900 - let_in, (name, found)
            assert found["408"] in (range(1) if name == "nothing" else range(200, let_in + 1)), (name, found)
        assert len(seconds) == 200
        assert sorted(seconds)[-20] < 3, "it is not held up; a busy machine may hold up one in ten"
        assert rss_bytes(site) < before + 150 * MIB
        with Client(address) as client:
            assert client.post("/ingest/web", b"{}\n").status == 200
