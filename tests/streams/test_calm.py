"""When free memory goes back to the system."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from logfwd.forwarder import Forwarder
from logreceiver.service import LINK_BYTES
from streams import calm as calm_module
from streams.calm import AGAIN_SECONDS, BUSY_BYTES, Calm
from tests.support.installation import Installation, acknowledged, eventually, forwarding, lines, running


def test_it_comes_once_after_full_speed() -> None:
    calm = Calm()
    looks = [0, BUSY_BYTES, 2 * BUSY_BYTES, 3 * BUSY_BYTES - 1, 3 * BUSY_BYTES, 3 * BUSY_BYTES]
    assert [calm.has_come(size, now) for now, size in enumerate(looks)] == [False, False, False, True, False, False]


def test_it_comes_never_without() -> None:
    calm = Calm()
    assert not any(calm.has_come(now * (BUSY_BYTES - 1), now) for now in range(100))


def test_after_many_bursts_it_comes_now_and_then() -> None:
    calm = Calm()
    came = [now for now in range(100) if calm.has_come((now + 1) // 2 * BUSY_BYTES, now)]
    assert {later - now for now, later in pairwise(came)} == {AGAIN_SECONDS}


async def test_then_a_forwarder_gives_free_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = list[int]()
    monkeypatch.setattr(calm_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(Calm, "has_come", lambda _, worked_bytes, now: not trimmed)
    monkeypatch.setattr(calm_module, "trim_heap", lambda: trimmed.append(1))
    installation = Installation(tmp_path)
    async with Forwarder(installation.forwarder_config("localhost:1", installation.stream())):
        await eventually(lambda: bool(trimmed))


async def test_a_receiver_counts_batches_and_links_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()
    monkeypatch.setattr(calm_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(Calm, "has_come", lambda _, worked_bytes, now: seen.append(worked_bytes))
    installation = Installation(tmp_path)
    async with running(installation.receiver_config()) as service:
        await eventually(lambda: bool(seen))
        assert seen[-1] == 0
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            installation.append(*lines(100))
            await eventually(lambda: acknowledged(forwarder) == 100)
            batches = service._shared.budget.total_bytes
            assert batches > 0
            await eventually(lambda: seen[-1] == batches)
        await eventually(lambda: seen[-1] == batches + LINK_BYTES)
