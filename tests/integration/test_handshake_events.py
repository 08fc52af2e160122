"""Each end logs every handshake once, with its result and cost; for a failed one, with what is known."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from structlog.typing import EventDict

from streams.security import modes, rotation, stacks
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
from tests.support.tls import Parties

FIELDS = ("version", "group", "cipher", "bytes_in", "bytes_out", "milliseconds")


def by_end(events: Events, event: str) -> tuple[EventDict, EventDict]:
    """The forwarder's event, which knows its stream, and the receiver's, which knows none."""
    (forwarder,) = [entry for entry in found(events, event) if "stream" in entry]
    (receiver,) = [entry for entry in found(events, event) if "stream" not in entry]
    return forwarder, receiver


def total(registry: CollectorRegistry, metric: str, **labels: str) -> float:
    """Sum of a counter's samples that have these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize("name", ["classical-tls12", "classical", "hybrid", "hybrid-p256"])
async def test_both_ends_log_a_complete_handshake_alike(installation: Installation, events: Events, name: str) -> None:
    installation.append(*lines(3))
    async with running(installation.receiver_config(modes=(name,))) as service:
        stream = installation.stream(security=name)
        config = installation.forwarder_config(service.listeners[0].address, stream)
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 3)
        of_stream = {"stream": "http", "mode": name, "role": "receiver", "result": "ok"}
        assert total(service.registry, "tls_handshakes_total", **of_stream) == 1
        assert total(service.registry, "tls_handshakes_total") == 1
    sent, received = by_end(events, "handshake complete")
    mode = modes.MODES[name]
    for logged in (sent, received):
        assert (logged["version"], logged["group"]) == (mode.version, mode.groups[0])
        assert logged["cipher"].startswith(("TLS_", "ECDHE-"))
        assert 0 < logged["milliseconds"] < 10_000
    assert (sent["bytes_out"], sent["bytes_in"]) == (received["bytes_in"], received["bytes_out"])
    assert 0 < sent["connect_milliseconds"] < 10_000


async def test_both_ends_log_a_failed_handshake_with_its_cost(installation: Installation, events: Events) -> None:
    stranger = Parties(installation.directory / "stranger").receiver
    forged = installation.receiver_config(credentials=stranger)
    installation.append(*lines(3))
    async with running(forged) as service:
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            await eventually(lambda: len(found(events, "handshake failed")) >= 2)
            assert total(forwarder.registry, "tls_handshakes_total", result="unknown_ca", stream="http") >= 1
        assert total(service.registry, "tls_handshakes_total", result="alert_received", stream="") >= 1
    logged = found(events, "handshake failed")
    (sent, *_), (received, *_) = (
        [entry for entry in logged if entry["reason"] == reason] for reason in ("unknown_ca", "alert_received")
    )
    for end in (sent, received):
        assert set(FIELDS) <= set(end)
        assert (end["version"], end["group"]) == ("TLSv1.3", "X25519MLKEM768"), "both had agreed on these by then"
        assert end["bytes_in"] > 1000
        assert end["bytes_out"] > 1000
        assert end["milliseconds"] > 0


async def test_what_was_never_agreed_on_is_logged_as_none(installation: Installation, events: Events) -> None:
    async with (
        running(installation.receiver_config(modes=("classical",))) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)),
    ):
        await eventually(lambda: len(found(events, "handshake failed")) >= 2)
    for end in found(events, "handshake failed"):
        assert [end[field] for field in FIELDS[:3]] == ["none"] * 3, end
    told = [(end["listener"], end["modes"]) for end in found(events, "handshake failed") if "modes" in end]
    assert set(map(str, told)) == {str((service.listeners[0].address, ["classical"]))}, (
        "the receiver says what it serves"
    )


async def test_a_handshake_that_fails_while_a_link_is_rotated_is_logged_and_counted(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Parties(installation.directory / "stranger").receiver
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        await eventually(lambda: found(events, "link opened"))
        service.listeners[0].replace(stacks.server([modes.MODES["hybrid"]], stranger))
        monkeypatch.setattr(rotation, "ROTATE_SECONDS", 0.0)
        installation.append(*lines(3))
        await eventually(lambda: found(events, "link rotation failed"))
        assert total(forwarder.registry, "tls_handshakes_total", result="unknown_ca", stream="http") >= 1
    assert found(events, "link rotation failed")[0]["reason"] == "handshake_unknown_ca"
    assert found(events, "handshake failed")
