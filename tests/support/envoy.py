"""A real Envoy that passes TCP on to a receiver, with PROXY protocol version 2 in front."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.lab.processes import die_with_parent, wait_until
from bench.lab.site import command
from streams.addresses import split_address

OWN_ADDRESS = "127.0.0.9"
"""What Envoy connects to the receiver from, so that its own address is none of a client's."""
_TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_PROXY = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
_PLAIN = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


class Envoy:
    """Listens on a port of its own until it is stopped; `health_checks`: also connects by itself, every 0.2 s."""

    def __init__(self, directory: Path, receiver: str, *, health_checks: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._config, self._log = directory / "envoy.json", directory / "envoy.log"
        self._config.write_text(json.dumps(_config(self.address, receiver, health_checks)))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [command("envoy"), "-c", str(self._config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=die_with_parent)  # noqa: PLW1509
        assert wait_until(self._answers, 60, every_seconds=0.05), self._log.read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(split_address(self.address)):
            return True
        return False

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running_envoy(directory: Path, receiver: str, *, health_checks: bool = False) -> Iterator[Envoy]:
    """One in front of this address."""
    envoy = Envoy(directory, receiver, health_checks=health_checks)
    try:
        envoy.start()
        yield envoy
    finally:
        envoy.kill()


def _config(address: str, receiver: str, health_checks: bool) -> dict[str, Any]:
    passing = {"@type": _TCP, "stat_prefix": "tcp", "cluster": "receiver", "idle_timeout": "0s"}
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": passing}]
    plain = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": _PLAIN}}
    proxy = {"@type": _PROXY, "config": {"version": "V2"}, "transport_socket": plain}
    check = {"timeout": "1s", "interval": "0.2s", "unhealthy_threshold": 3, "healthy_threshold": 1}
    cluster = {
        "name": "receiver",
        "type": "STATIC",
        "health_checks": [check | {"tcp_health_check": {}}] if health_checks else [],
        "upstream_bind_config": {"source_address": _socket(f"{OWN_ADDRESS}:0")["socket_address"]},
        "load_assignment": {
            "cluster_name": "receiver",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(receiver)}}]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": proxy},
    }
    listener = {"address": _socket(address), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _socket(address: str) -> dict[str, Any]:
    host, port = split_address(address)
    return {"socket_address": {"address": host, "port_value": port}}
