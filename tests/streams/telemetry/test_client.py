"""The client of an admin address, against the server; errors say what to check."""

from __future__ import annotations

import asyncio
import json

import pytest

from streams.telemetry import admin
from streams.telemetry.client import NotAnswered, ask
from streams.telemetry.metrics import CollectorRegistry


async def test_an_admin_address_is_asked_by_host_and_port_or_by_url() -> None:
    rows = [{"stream": "http"}]
    async with admin.serve(
        "127.0.0.1:0", CollectorRegistry(), ready=dict, streams=lambda: rows, program="logfwd"
    ) as server:
        for address in (server.address, f"http://{server.address}", f"http://{server.address}/"):
            answer = await asyncio.to_thread(ask, address, "/api/v1/streams")
            assert answer is not None
            assert json.loads(answer)["streams"] == rows
        assert await asyncio.to_thread(ask, server.address, "/api/v1/nothing") is None
    with pytest.raises(NotAnswered, match=r"is it the `admin\.address` of a running program"):
        await asyncio.to_thread(ask, server.address, "/api/v1/streams")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1"])
def test_only_http_is_spoken(address: str) -> None:
    with pytest.raises(NotAnswered, match="give HOST:PORT"):
        ask(address, "/api/v1/streams")
