"""The proxy disturbs links as requested, and only then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.chaos.faultproxy import FaultProxy
from bench.lab.processes import wait_until

WAIT_SECONDS = 5.0


class Echo:
    """A peer that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.received = bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.received += data
                connection.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    peer = Echo()
    yield peer
    peer.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.address) as proxy:
        yield proxy


def connect(proxy: FaultProxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_SECONDS)


def exactly(link: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (data := link.recv(size - len(received))):
        received += data
    return received


def test_what_is_sent_arrives_and_comes_back(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 1000
    with connect(proxy) as link:
        threading.Thread(target=link.sendall, args=(data,)).start()
        assert exactly(link, len(data)) == data


@pytest.mark.parametrize("after_bytes", [0, 1, 70_000])
def test_a_link_is_reset_after_exactly_that_byte(proxy: FaultProxy, echo: Echo, after_bytes: int) -> None:
    proxy.cut(after_bytes)
    with connect(proxy) as link, pytest.raises(ConnectionError):
        link.sendall(bytes(100_000))
        while link.recv(65536):
            pass
    wait_until(lambda: len(echo.received) >= after_bytes, WAIT_SECONDS, every_seconds=0.01)
    assert len(echo.received) == after_bytes
    assert proxy.cuts == 1


def test_a_held_link_stays_open_and_continues_where_it_stopped(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as link:
        link.sendall(b"one")
        assert exactly(link, 3) == b"one"
        proxy.hold()
        link.sendall(b"two")
        link.settimeout(0.2)
        with pytest.raises(TimeoutError):
            link.recv(3)
        assert bytes(echo.received) == b"one"
        proxy.release()
        link.settimeout(WAIT_SECONDS)
        assert exactly(link, 3) == b"two"


def test_a_throttled_link_is_slow(proxy: FaultProxy) -> None:
    proxy.throttle(100_000)
    started = time.monotonic()
    with connect(proxy) as link:
        link.sendall(bytes(20_000))
        assert exactly(link, 20_000) == bytes(20_000)
    assert time.monotonic() - started >= 0.2
    proxy.heal()


def test_an_address_refuses_and_listens_again_at_the_same_port(proxy: FaultProxy) -> None:
    with connect(proxy) as link:
        link.sendall(b"one")
        assert exactly(link, 3) == b"one"
        proxy.refuse()
        with contextlib.suppress(ConnectionError):
            assert link.recv(1) == b"", "the link is ended"
    assert wait_until(lambda: not answers(proxy), WAIT_SECONDS, every_seconds=0.01)
    proxy.listen()
    assert wait_until(lambda: answers(proxy), WAIT_SECONDS, every_seconds=0.01)


def answers(proxy: FaultProxy) -> bool:
    with contextlib.suppress(ConnectionError), connect(proxy) as link:
        link.sendall(b"one")
        return exactly(link, 3) == b"one"
    return False
