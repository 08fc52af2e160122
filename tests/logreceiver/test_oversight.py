"""Links end by themselves when what they rest on does."""

from __future__ import annotations

import asyncio
import datetime
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from logreceiver import oversight
from logreceiver.links.grants import Grants
from logreceiver.links.shared import Shared
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks.make import make_sink
from streams.security.revocation import Revoked
from streams.telemetry.metrics import CollectorRegistry
from tests.logreceiver.links.test_session import CONFIG
from tests.support.installation import eventually


async def test_links_are_judged_whenever_the_required_list_of_one_more_authority_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.0)
    metrics, grants = ReceiverMetrics(CollectorRegistry()), Grants({"1": b"k" * 32})
    shared = Shared(replace(CONFIG, crl_required=True), make_sink(CONFIG.sink), grants, metrics)
    now, hour, judged = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1), list[Revoked]()
    ends = [now - hour, now + hour, now + hour]

    def is_judged(times: int) -> bool:
        return len(judged) == times

    async with oversight.overseeing(list, shared, lambda: judged.append(shared.revoked)):
        for ended in (1, 2, 3):
            dates = [now - hour] * ended + ends[ended:]
            shared.revoked = Revoked({}, dict(zip((b"a", b"b", b"c"), dates, strict=True)))
            await eventually(partial(is_judged, ended))
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(judged) == ended


async def test_many_links_are_looked_at_without_holding_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.0)
    metrics, grants = ReceiverMetrics(CollectorRegistry()), Grants({"1": b"k" * 32})
    shared = Shared(CONFIG, make_sink(CONFIG.sink), grants, metrics)
    turns_of_loop, looked_at = 0, list[int]()

    class Link:
        def overdue(self) -> None:
            looked_at.append(turns_of_loop)

    links: list[Any] = [Link() for _ in range(5 * oversight.AT_ONCE)]
    async with oversight.overseeing(lambda: links, shared, lambda: None):
        while len(looked_at) < len(links):
            await asyncio.sleep(0)
            turns_of_loop += 1
    assert len(set(looked_at[: len(links)])) == 5
