"""A stream's pipeline is built again after a failure, and what is wrong with it is shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from logfwd import keeper
from logfwd.changes import Group
from logfwd.definition import Stream
from logfwd.keeper import HEALTHY_SECONDS, Keeper
from streams.errors import SpoolError
from tests.support.installation import eventually

GROUP: Group = (Stream(name="s"), ())


class Broken:
    """Pipelines that fail after a time that the test chooses; the pauses between them are noted, and over at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.lasts = 0.0, 0.0
        self.pauses: list[float] = []
        self.health: dict[str, str] = {}
        monkeypatch.setattr(keeper, "clock", lambda: self.now)
        monkeypatch.setattr("logfwd.links.backoff.random.uniform", lambda low, high: high)
        timeout = asyncio.timeout

        def no_pause(seconds: float) -> asyncio.Timeout:
            self.pauses.append(seconds)
            return timeout(0)

        monkeypatch.setattr("logfwd.keeper.asyncio.timeout", no_pause)

    @contextlib.asynccontextmanager
    async def make(self, _: Group) -> AsyncGenerator[Any, None]:
        async def run() -> None:
            self.now += self.lasts
            raise SpoolError("the spool is damaged")

        yield SimpleNamespace(run=run, stop_reading=lambda: None, source=SimpleNamespace(health=lambda: self.health))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(monkeypatch)


async def end(one: Keeper) -> None:
    one._stopping.set()
    await one._task


async def test_a_pipeline_that_fails_at_once_is_built_again_ever_more_seldom(broken: Broken) -> None:
    one = Keeper(GROUP, broken.make, lambda: None)
    while len(broken.pauses) < 4:
        await asyncio.sleep(0)
    await end(one)
    assert broken.pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert one.troubles() == {"s": "the spool is damaged"}
    assert not one.finished


async def test_one_that_ran_well_is_built_again_as_soon_as_after_a_first_failure(broken: Broken) -> None:
    broken.lasts = HEALTHY_SECONDS + 1
    one = Keeper(GROUP, broken.make, lambda: None)
    while len(broken.pauses) < 4:
        await asyncio.sleep(0)
    await end(one)
    assert broken.pauses[:4] == [0.1] * 4


async def test_what_keeps_a_source_from_working_is_shown_under_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, health = asyncio.Event(), dict[str, str]()

    @contextlib.asynccontextmanager
    async def make(_: Group) -> AsyncGenerator[Any, None]:
        yield SimpleNamespace(run=stopped.wait, stop_reading=stopped.set, troubles=lambda: health)

    one = Keeper(GROUP, make, lambda: None)
    await eventually(lambda: one.pipeline is not None)
    assert one.troubles() == {}
    health["port 8080"] = "taken"
    assert one.troubles() == {"s/port 8080": "taken"}
    await one.stop(1.0)
    assert one.troubles() == {}
