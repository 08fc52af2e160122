"""Streams with several receivers, of which some cannot serve."""

from __future__ import annotations

import msgspec
import pytest

from logreceiver.sinks.settings import KafkaSink
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running


async def test_a_receiver_that_cannot_reach_its_kafka_is_left_for_one_that_can_serve(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.links.connector.random.randrange", lambda _: 0)  # the first receiver comes first
    good = installation.receiver_config()
    away = msgspec.structs.replace(good, sink=KafkaSink(brokers=("127.0.0.1:1",)), ledger=None)
    async with running(away) as without, running(good) as serving:
        addresses = (without.listeners[0].address, serving.listeners[0].address)
        config = msgspec.structs.replace(installation.forwarder_config(addresses[0]), receivers=addresses)
        async with forwarding(config) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10, seconds=60)
    assert installation.stored() == lines(10)
    assert [event["code"] for event in found(events, "run not opened") if "detail" in event] == ["unavailable"]
