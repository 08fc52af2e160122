"""Streams in modes kemtls and kemtls-pdk in an installation that has no files for other modes: keys replaced."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from logreceiver.config import Listener, ReceiverConfig
from streams.security.endpoint import Credentials, KeyPair
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.tls import issue

KEM = ("kemtls", "kemtls-pdk")
NAMES = {"identities": ["receiver"], "hosts": ["localhost", "127.0.0.1"]}


def receiver_config(installation: Installation, credentials: Credentials | None = None) -> ReceiverConfig:
    """A listener for each of the two modes, and no files for any other mode."""
    config = installation.receiver_config(credentials=credentials)
    listeners = tuple(Listener(address="localhost:0", modes=(mode,)) for mode in KEM)
    tls = msgspec.structs.replace(config.tls, certificate=None, key=None, ca=None, mldsa=None)
    return msgspec.structs.replace(config, listener=listeners, tls=tls)


@pytest.mark.parametrize("mode", KEM)
async def test_a_key_that_was_replaced_is_used_for_new_links_and_strands_no_forwarder(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("logreceiver.service.CERTIFICATE_CHECK_SECONDS", 0.02)
    parties = installation.parties
    assert parties.receiver.mlkem is not None
    old = issue(parties.mldsa, "receiver-old", kind="mlkem768", **NAMES)
    previous = (KeyPair(old.certificate, old.key),)
    files = msgspec.structs.replace(parties.receiver.mlkem, previous=previous)
    receiver = receiver_config(installation, msgspec.structs.replace(parties.receiver, mlkem=files))
    assert parties.forwarder.mlkem is not None
    stored = msgspec.structs.replace(parties.forwarder.mlkem, stored_keys=(parties.store_key("receiver-old"),))
    forwarder = msgspec.structs.replace(parties.forwarder, mlkem=stored)
    async with running(receiver) as service:
        address = service.listeners[KEM.index(mode)].address
        stream = installation.stream(security=mode)
        config = installation.forwarder_config(address, stream, credentials=forwarder)
        await asyncio.sleep(0.05)  # by then the receiver has looked once
        issue(parties.mldsa, "receiver-kem", kind="mlkem768", force=True, days=9, **NAMES)
        await eventually(lambda: found(events, "certificate reloaded"))
        installation.append(*lines(5))
        async with forwarding(config) as running_forwarder:
            await eventually(lambda: acknowledged(running_forwarder) == 5)
            (row,) = running_forwarder.describe()
    assert row["link"]["authentication"] == "ML-KEM-768"
    assert installation.stored() == lines(5)


async def test_a_leaf_of_the_wrong_kind_does_not_replace_the_one_in_use(
    installation: Installation, events: Events
) -> None:
    authority = installation.parties.mldsa
    async with running(receiver_config(installation)) as service:
        issue(authority, "receiver-kem", kind="ec", force=True, **NAMES)
        await service.reload_certificates()
        (refused,) = found(events, "certificate reload failed")
        assert "tls.mlkem.certificate: its key is EC secp256r1; mode kemtls demands ML-KEM-768" in refused["reason"]
        installation.append(*lines(5))
        stream = installation.stream(security="kemtls")
        async with forwarding(installation.forwarder_config(service.listeners[0].address, stream)) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 5)
