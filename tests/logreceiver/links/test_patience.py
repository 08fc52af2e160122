"""Answers to OPEN_RUN that are held until the sink is back."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from logreceiver.links import patience
from streams.errors import Code, SinkUnavailable
from streams.wire import messages as m
from tests.logreceiver.links.test_storing import OneLink


async def test_a_forwarder_with_patience_hears_of_the_sink_s_return_and_one_without_at_once_of_its_absence() -> None:
    link = OneLink()
    run = await link.open()
    link.sink.away = True
    ask = m.OpenRun(1, run.topic, run.partition, run.producer_id, 0, run.grant)
    (answer,) = await link.does(ask)
    assert isinstance(answer, m.Nack)
    assert answer.code == Code.UNAVAILABLE
    held = asyncio.create_task(link.does(replace(ask, patience_ms=20_000)))
    await asyncio.sleep(0.3)
    assert not held.done()
    link.sink.away = False
    (answer,) = await held
    assert isinstance(answer, m.Run)


async def test_patience_ends_and_is_no_use_where_an_operator_has_to_help() -> None:
    link = OneLink()
    run = await link.open()
    ask = m.OpenRun(1, run.topic, run.partition, run.producer_id, 0, run.grant, patience_ms=300)
    link.sink.away = True
    (answer,) = await link.does(ask)
    assert isinstance(answer, m.Nack)
    (answer,) = await link.does(replace(ask, grant=b"another", patience_ms=20_000))
    assert isinstance(answer, m.Nack)
    assert answer.code == Code.NOT_GRANTED


async def test_the_more_wait_the_more_seldom_each_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(patience, "MOST_LOOKS_PER_SECOND", 200.0)
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise SinkUnavailable(Code.UNAVAILABLE, "away")

    waiting, began = patience.Patience(), time.monotonic()
    await asyncio.gather(*(waiting.until(look, 0.5) for _ in range(50)), return_exceptions=True)
    assert looks <= 50 + 2 * 200 * (time.monotonic() - began)
