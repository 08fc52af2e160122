"""More dead letters than their budget has room for, from a file to an embedded log that refuses them."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from prometheus_client import generate_latest

from logfwd.config import ForwarderConfig
from logfwd.definition import SpoolLimits
from tests.support.installation import (
    Events,
    Installation,
    acknowledged,
    eventually,
    forwarding,
    found,
    lines,
    running,
)


def of_giants(policy: Literal["block", "drop_oldest"]) -> tuple[SpoolLimits, list[str]]:
    """Room for two of three records as dead letters; each is too large for a sink that takes 4 000 bytes."""
    giants = [json.dumps({"n": n, "noise": random.Random(n).randbytes(8_000).hex()}) for n in range(3)]
    return SpoolLimits(when_full=policy, max_dead_letter_bytes=22_000), giants


async def test_a_stream_that_blocks_waits_at_a_batch_for_which_there_is_no_room_among_the_dead_letters(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.links.conversation.FULL_PAUSE_SECONDS", 0.05)
    receiver, (limits, giants) = installation.receiver_config(), of_giants("block")
    small = msgspec.structs.replace(receiver.sink, max_message_bytes=4_000)
    installation.append(*lines(10), *giants, *lines(10, 10))

    def config(address: str) -> ForwarderConfig:
        return installation.forwarder_config(address, installation.stream(spool=limits))

    async with (
        running(msgspec.structs.replace(receiver, sink=small)) as service,
        forwarding(config(service.listeners[0].address)) as forwarder,
    ):
        await eventually(lambda: found(events, "dead letters full"))
        refused = len(found(events, "batch refused"))
        await eventually(lambda: len(found(events, "batch refused")) > refused + 2)  # it is tried again
        (row,) = forwarder.describe()
        assert (row["records"]["acknowledged"], row["records"]["dead_lettered"]) == (10, 2)
        (reason,) = forwarder._ready().values()
        assert "(too_large): max_dead_letter_bytes is used up" in reason
    assert len(found(events, "dead letters full")) == 1
    async with (
        running(receiver) as service,
        forwarding(config(service.listeners[0].address)) as forwarder,
    ):
        await eventually(lambda: acknowledged(forwarder) == 21)
        assert forwarder._ready() == {}
    assert installation.stored() == [*lines(10), giants[2], *lines(10, 10)]


async def test_a_stream_that_drops_gives_up_its_oldest_dead_letter_and_counts_it(
    installation: Installation, events: Events
) -> None:
    receiver, (limits, giants) = installation.receiver_config(), of_giants("drop_oldest")
    small = msgspec.structs.replace(receiver.sink, max_message_bytes=4_000)
    installation.append(*lines(10), *giants, *lines(10, 10))
    async with (
        running(msgspec.structs.replace(receiver, sink=small)) as service,
        forwarding(
            installation.forwarder_config(service.listeners[0].address, installation.stream(spool=limits))
        ) as forwarder,
    ):
        await eventually(lambda: acknowledged(forwarder) == 20)
        (row,) = forwarder.describe()
        assert (row["records"]["dropped"], row["records"]["dead_lettered"]) == (1, 2)
        assert b'logfwd_unaccounted_records{stream="http"} 0.0' in generate_latest(forwarder.registry)
    assert [event["records"] for event in found(events, "oldest dead letter dropped")] == [1]
    with contextlib.closing(sqlite3.connect(tmp_spool(installation))) as connection:
        assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (2,)


def tmp_spool(installation: Installation) -> Path:
    return installation.directory / "state" / "http.spool"
