"""The delaying proxy delivers everything, in order, and as late as requested."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.handshakes.delayproxy import delay_proxy, echo_peer, error_rows
from streams.addresses import split_address

WAIT_SECONDS = 10.0
RTT_SECONDS = 0.06


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    with echo_peer() as target, delay_proxy(tmp_path, target, RTT_SECONDS) as address:
        yield address


def exactly(link: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := link.recv(size - len(received))):
        received += data
    return bytes(received)


def test_no_round_trip_is_shorter_than_requested(proxy: str) -> None:
    with socket.create_connection(split_address(proxy), timeout=WAIT_SECONDS) as link:
        for _ in range(3):
            started = time.perf_counter()
            link.sendall(b"ping")
            assert exactly(link, 4) == b"ping"
            assert time.perf_counter() - started >= RTT_SECONDS


def test_many_bytes_come_back_in_order_and_share_one_delay(proxy: str) -> None:
    data = b"".join(number.to_bytes(4) for number in range(1_000_000))
    with socket.create_connection(split_address(proxy), timeout=WAIT_SECONDS) as link:
        started = time.perf_counter()
        threading.Thread(target=link.sendall, args=(data,), daemon=True).start()
        assert exactly(link, len(data)) == data
        pieces = len(data) / 262_144  # one after the other these would take as many round trips
        assert RTT_SECONDS <= time.perf_counter() - started < RTT_SECONDS * pieces


def test_the_end_of_a_connection_arrives_after_its_last_byte(proxy: str) -> None:
    with socket.create_connection(split_address(proxy), timeout=WAIT_SECONDS) as link:
        link.sendall(b"last words")
        link.shutdown(socket.SHUT_WR)
        assert exactly(link, 10) == b"last words"
        assert link.recv(1) == b""


def test_a_target_that_is_not_there_ends_the_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"127.0.0.1:{closed.getsockname()[1]}"
    with (
        delay_proxy(tmp_path, target, 0.0) as address,
        socket.create_connection(split_address(address), timeout=WAIT_SECONDS) as link,
    ):
        assert link.recv(1) == b""


def test_its_own_error_is_measured_and_is_never_early(tmp_path: Path) -> None:
    rows = error_rows(tmp_path, [0, 20], echoes=9)
    assert [row["rtt_ms"] for row in rows] == [0, 20]
    for row in rows:
        assert -0.5 < row["late_p50_ms"] <= row["late_p95_ms"]
    assert rows[1]["late_p50_ms"] < 20, "late by a whole round trip more: something waits twice"
