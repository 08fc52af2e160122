"""Streams in mode kemtls whose ends have keys for a day, delegated to them; renewed while both programs run."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from streams.telemetry.metrics import CERTIFICATE_EXPIRY
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.tls import delegating


async def test_records_arrive_and_a_renewed_credential_is_used_without_a_restart(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.service.CERTIFICATE_CHECK_SECONDS", 0.02)
    parties = installation.parties
    sides = {
        role: msgspec.structs.replace(files, mlkem=None, delegated=delegating(parties, role, hours=12))
        for role, files in (("receiver", parties.receiver), ("forwarder", parties.forwarder))
    }
    labels = {"stream": "", "owner": "delegated"}
    receiver = installation.receiver_config(modes=("kemtls",), credentials=sides["receiver"])
    async with running(receiver) as service:

        def expiry() -> float:
            value = service.registry.get_sample_value(CERTIFICATE_EXPIRY.name, labels)
            assert value is not None
            return value

        before = expiry()
        installation.append(*lines(5))
        address = service.listeners[0].address
        config = installation.forwarder_config(
            address, installation.stream(security="kemtls"), credentials=sides["forwarder"]
        )
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 5)
            (row,) = forwarder.describe()
            assert row["link"]["authentication"] == "ML-KEM-768"
            assert forwarder.registry.get_sample_value(CERTIFICATE_EXPIRY.name, labels) is not None
            await asyncio.sleep(0.05)  # by then the receiver has looked once
            delegating(parties, "receiver")
            await eventually(lambda: found(events, "certificate reloaded"))
        assert expiry() > before + 11 * 3600
        installation.append(*lines(5, start=5))
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 10)
