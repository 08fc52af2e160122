"""Sockets that listen before anybody serves them are taken by address; what a service manager hands over has a name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.lab.handover import handing_over
from streams import handed


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    handed.drop_rest()


def launched(sock: socket.socket, count: str, names: str, script: str) -> str:
    argv = handing_over(sock.fileno(), [sys.executable, "-c", script], count=count, names=names)
    result = subprocess.run(argv, pass_fds=(sock.fileno(),), capture_output=True, check=True, timeout=60)
    return result.stdout.decode().strip()


def test_a_socket_is_taken_once_by_whoever_listens_on_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        handed.hold(sock)
        assert handed.are_there()
        assert handed.take([("127.0.0.1", 1), ("127.0.0.2", sock.getsockname()[1])]) == []
        assert [each.sock for each in handed.take([("::1", 1), sock.getsockname()])] == [sock]
        assert handed.take([sock.getsockname()]) == []
        assert not handed.are_there()


def test_what_nobody_takes_is_closed_and_told_if_it_is_a_service_managers() -> None:
    ours = socket.create_server(("127.0.0.1", 0))
    handed.hold(ours)
    assert handed.drop_rest() == []
    assert ours.fileno() == -1
    script = "from streams import handed; handed.inherit(); print(handed.drop_rest())"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert launched(sock, "1", "links", script) == str([("links", str(sock.getsockname()))])
        assert launched(sock, "1", "", script) == str([("unknown", str(sock.getsockname()))])


def test_only_sockets_that_listen_and_are_meant_for_this_process_are_inherited() -> None:
    script = (
        "import os; from streams import handed; handed.inherit();"
        "print(handed.are_there(), sorted(name for name in os.environ if name.startswith('LISTEN_')))"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert launched(sock, "1", "a", script) == "True []"
        assert launched(sock, "many", "a", script) == "False []"
        assert launched(sock, "3", "a:b:c", script) == "True []"  # there is one, whatever is said
        stranger = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        argv = [sys.executable, "-c", script]
        found = subprocess.run(argv, env={**os.environ, **stranger}, capture_output=True, check=True, timeout=60)
        assert found.stdout == b"False []\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        take = f"from streams import handed; handed.inherit(); print(handed.take([{datagrams.getsockname()}]))"
        assert launched(datagrams, "1", "a", take) == "[]"
