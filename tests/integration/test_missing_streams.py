"""A start does not go round the guard of reloads: streams that are missing then are said until somebody decides."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from logfwd import accepted
from logfwd.forwarder import Forwarder
from tests.integration.test_forwarder_reload import NAMES, config_of
from tests.support.installation import Events, Installation, found, running


async def test_a_start_without_streams_is_degraded_until_that_is_confirmed(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        config, fewer = (config_of(installation, service.listeners[0].address, *names) for names in (NAMES, ("a",)))
        async with Forwarder(config) as forwarder:
            assert forwarder._degraded() == {}
        for _ in range(2):  # another restart changes nothing
            async with Forwarder(fewer) as forwarder:
                trouble = forwarder._degraded()["config"]
                assert trouble.startswith("streams missing since the last start: b, c; put them back")
                refused = await forwarder.reload(lambda: fewer)
                assert (refused.outcome, refused.reason) == ("refused", "streams missing: b, c")
                assert refused.digest in trouble
        assert [event["streams"] for event in found(events, "streams missing")] == [["b", "c"]] * 2
        async with Forwarder(fewer) as forwarder:
            assert (await forwarder.reload(lambda: fewer, confirm=refused.digest)).outcome == "taken"
            assert "config" not in forwarder._degraded()
        async with Forwarder(fewer) as forwarder:
            assert "config" not in forwarder._degraded(), "it was decided"


async def test_streams_that_come_back_or_are_declared_as_removed_are_not_missing(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        config, fewer = (config_of(installation, service.listeners[0].address, *names) for names in (NAMES, ("a",)))
        async with Forwarder(config):
            pass
        async with Forwarder(fewer) as forwarder:
            assert (await forwarder.reload(lambda: config)).outcome == "taken"
            assert "config" not in forwarder._degraded()
        async with Forwarder(replace(fewer, removed=("b", "c"))) as forwarder:
            assert "config" not in forwarder._degraded()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
async def test_a_damaged_list_is_said_and_begins_anew(
    installation: Installation, events: Events, damage: bytes
) -> None:
    async with running(installation.receiver_config()) as service:
        config = config_of(installation, service.listeners[0].address, *NAMES)
        config.state_dir.mkdir(mode=0o700)
        (config.state_dir / accepted.NAME).write_bytes(damage)
        async with Forwarder(config) as forwarder:
            assert forwarder._degraded() == {}
    assert len(found(events, "accepted streams not known")) == 1
    assert accepted.load(config.state_dir) == set(NAMES)
