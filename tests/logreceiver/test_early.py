"""What the receiver's first statements listen on: what is clear, and never more."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.kafka import free_ports
from logreceiver import early
from streams import handed


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    handed.drop_rest()


def taken(host: str, port: int) -> int:
    """How many sockets there were for an address."""
    found = handed.take([(host, port)])
    for each in found:
        each.sock.close()
    return len(found)


def listened(tmp_path: Path, *addresses: str, arguments: tuple[str, ...] = ()) -> bool:
    config = tmp_path / "logreceiver.toml"
    config.write_text("".join(f'[[listener]]\naddress = "{address}"\n' for address in addresses))
    early.listen(["-c", str(config), *arguments])
    return handed.are_there()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
def test_a_clear_address_takes_connections_at_once(tmp_path: Path, host: str) -> None:
    (port,) = free_ports(1)
    assert listened(tmp_path, f"{host}:{port}")
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert taken(host or "0.0.0.0", port) == 1


@pytest.mark.parametrize(
    "address", ["localhost:{port}", "${{HOST}}:{port}", "127.0.0.1:0", "127.0.0.1", "unix:/tmp/x", "[::1", "{port}"]
)
def test_anything_else_is_left_to_the_receiver(tmp_path: Path, address: str) -> None:
    assert not listened(tmp_path, address.format(port=free_ports(1)[0]))


@pytest.mark.parametrize("argument", ["--workers", "--workers=2", "--help", "-h"])
def test_workers_and_help_are_left_to_the_receiver(tmp_path: Path, argument: str) -> None:
    assert not listened(tmp_path, f"127.0.0.1:{free_ports(1)[0]}", arguments=(argument,))


def test_an_address_in_use_is_left_to_the_receiver_and_the_others_are_listened_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        used, (port,) = other.getsockname()[1], free_ports(1)
        assert listened(tmp_path, f"127.0.0.1:{used}", f"127.0.0.1:{port}")
        assert (taken("127.0.0.1", used), taken("127.0.0.1", port)) == (0, 1)


@pytest.mark.parametrize("text", ["", "listener = 1", "[[listener]]\naddress = 1", "[[listener]]", "\0", "no toml"])
def test_a_configuration_that_is_wrong_is_left_to_the_receiver(tmp_path: Path, text: str) -> None:
    (tmp_path / "logreceiver.toml").write_text(text)
    early.listen(["-c", str(tmp_path / "logreceiver.toml")])
    early.listen(["-c", str(tmp_path / "missing.toml")])
    early.listen(["-c", str(tmp_path)])
    early.listen(["-c"])
    assert not handed.are_there()


@pytest.mark.parametrize(
    "arguments", [["-c", "a.toml"], ["-ca.toml"], ["--config", "a.toml"], ["--config=a.toml", "--log-level", "debug"]]
)
def test_the_configuration_is_found_as_the_command_line_finds_it(arguments: list[str]) -> None:
    assert early.config_path(arguments) == Path("a.toml")
    assert early.config_path(["--log-level", "debug"]) == Path("logreceiver.toml")
