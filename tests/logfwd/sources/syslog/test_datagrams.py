"""Datagrams are always read; what there is no room for costs nothing but its reading."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logfwd.intake.batcher import Portion
from logfwd.sources.front import Front
from logfwd.sources.syslog import inbox as inbox_module
from logfwd.sources.syslog.counts import Losses
from logfwd.sources.syslog.datagrams import Datagrams
from logfwd.sources.syslog.inbox import Inbox
from logfwd.sources.syslog.message import to_json
from logfwd.sources.syslog.settings import Served, SyslogSource
from logfwd.sources.turns import REST_SECONDS
from streams.addresses import split_address
from tests.support.installation import eventually
from tests.support.syslog_clients import Counted


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The messages that were parsed."""
    found = list[bytes]()

    def noted(message: bytes, now: float, **more: Any) -> bytes | None:
        found.append(message)
        return to_json(message, now, **more)

    monkeypatch.setattr(inbox_module, "to_json", noted)
    return found


@pytest.mark.parametrize(("size", "sent"), [(100, 1000), (20_000, 100)])
async def test_what_is_dropped_is_not_parsed(tmp_path: Path, parsed: list[bytes], size: int, sent: int) -> None:
    path, counted, inbox = str(tmp_path / "log"), Counted(), Inbox(Front(), max_bytes=50_000)
    listener = Datagrams("unix", path, Served("s", SyslogSource(unix=(path,))), inbox, Losses("s", counted.counters))
    await listener.open()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(path)
        for number in range(sent):
            await asyncio.get_running_loop().sock_sendall(client, b"<13>app: %d %b" % (number, b"x" * size))
    await listener.stop()
    blocks = list(inbox.rest(1 << 20))
    taken = sum(block.data.count(b"\n") for block in blocks)
    assert 0 < taken < len(parsed) + 1 <= taken + 30
    assert counted.dropped == {"no_room": sent - taken}
    inbox.committed(Portion(blocks).positions())
    assert inbox.lag_bytes() == 0


async def test_a_sender_that_never_pauses_leaves_time_to_batches_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, rests, sent = asyncio.get_running_loop(), list[float](), 0
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        rests.append(delay)
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", noted)
    path, counted, inbox = str(tmp_path / "log"), Counted(), Inbox(Front(), max_bytes=1 << 24)
    served, losses = Served("s", SyslogSource(unix=(path,))), Losses("s", counted.counters)
    listener = Datagrams("unix", path, served, inbox, losses, lambda: True)
    await listener.open()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(path)
        with contextlib.suppress(BlockingIOError):  # until its queue is full
            while sent < 100:
                client.send(b"<13>app: %d %b" % (sent, b"x" * 8000))
                sent += 1
    await eventually(lambda: inbox.lag_bytes() >= 8000 * sent)
    assert rests.count(REST_SECONDS) >= sent // 3 - 1
    await listener.stop()
    assert sum(block.data.count(b"\n") for block in inbox.rest(1 << 20)) == sent
    assert not counted.dropped


@pytest.mark.parametrize("size", [100, 3000])
async def test_what_the_kernel_drops_is_counted_though_nothing_comes_afterwards(size: int) -> None:
    counted, inbox, sent = Counted(), Inbox(Front(), max_bytes=1 << 26), 20_000
    settings = SyslogSource(udp=("127.0.0.1:0",), max_message_bytes=2048)
    listener = Datagrams("udp", "127.0.0.1:0", Served("s", settings), inbox, Losses("s", counted.counters))
    await listener.open()
    host, port = split_address(listener.address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(sent):  # nobody reads meanwhile
            client.sendto(b"<13>app: %05d %b" % (number, b"x" * size), (host, port))
    kept = 0

    def is_whole() -> bool:
        nonlocal kept
        kept += sum(block.data.count(b"\n") for block in inbox.rest(1 << 20))
        return kept + sum(counted.dropped.values()) == sent

    await eventually(is_whole)
    assert counted.dropped.get("receive_queue", 0) > 0
    assert bool(kept) == (size < 2048)
    await listener.stop()
