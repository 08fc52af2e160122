"""Streams whose ends have keys for a day, delegated to them; renewed while both programs run."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from streams.security.endpoint import DelegatedKind
from streams.telemetry.metrics import CERTIFICATE_EXPIRY
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.tls import delegating


@pytest.mark.parametrize(
    ("mode", "kind", "authentication"),
    [
        ("kemtls", "mlkem768", "ML-KEM-768"),
        ("pq-auth", "mldsa65", "mldsa65"),
        ("hybrid", "ec", "ecdsa_secp256r1_sha256"),
    ],
)
async def test_records_arrive_and_a_renewed_credential_is_used_without_a_restart(
    mode: str,
    kind: DelegatedKind,
    authentication: str,
    installation: Installation,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logreceiver.service.CERTIFICATE_CHECK_SECONDS", 0.02)
    parties = installation.parties
    sides = {
        role: msgspec.structs.replace(files, delegated=delegating(parties, role, kind=kind, hours=12))
        for role, files in (("receiver", parties.receiver), ("forwarder", parties.forwarder))
    }
    labels = {"stream": "", "owner": "delegated"}
    receiver = installation.receiver_config(modes=(mode,), credentials=sides["receiver"])
    async with running(receiver) as service:

        def expiry() -> float:
            value = service.registry.get_sample_value(CERTIFICATE_EXPIRY.name, labels)
            assert value is not None
            return value

        before = expiry()
        installation.append(*lines(5))
        address = service.listeners[0].address
        config = installation.forwarder_config(
            address, installation.stream(security=mode), credentials=sides["forwarder"]
        )
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 5)
            (row,) = forwarder.describe()
            assert row["link"]["authentication"] == authentication
            assert row["link"]["stack"] == "tls13"
            ((link,),) = (row["newest_links"] for row in service._streams())
            assert (link["mode"], link["stack"]) == (mode, "tls13")
            assert forwarder.registry.get_sample_value(CERTIFICATE_EXPIRY.name, labels) is not None
            await asyncio.sleep(0.05)  # by then the receiver has looked once
            delegating(parties, "receiver", kind=kind)
            await eventually(lambda: found(events, "certificate reloaded"))
        assert expiry() > before + 11 * 3600
        installation.append(*lines(5, start=5))
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 10)
