"""The thread of the admin address: who waits for it, and how."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from pathlib import Path

import aiohttp

from streams.addresses import split_address
from streams.telemetry import admin, adminthread
from streams.telemetry.metrics import CollectorRegistry


async def test_a_thousand_connections_at_once_are_not_for_the_kernel_to_put_off() -> None:
    async with admin.serve("127.0.0.1:0", CollectorRegistry(), ready=dict, streams=list) as server:
        await _answered(server.address)
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert _backlog(split_address(server.address)) == min(adminthread.BACKLOG, most)


async def _answered(address: str) -> None:
    """It listens anew when its thread has begun."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/healthz") as answer:
        assert answer.status == 200


def _backlog(address: tuple[str, int]) -> int:
    """How many connections may wait at this address to be accepted (tcpi_sacked of struct tcp_info)."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the listing itself is closed
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
            if sock.getsockname() == address and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[28:32], sys.byteorder)
    raise AssertionError(f"nothing listens at {address}")
