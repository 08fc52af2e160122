"""What happens to a running installation: links are rotated, certificates and configs replaced, stops and signals."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench.lab.site import Site
from logfwd.config import Admin, ForwarderConfig, load_forwarder
from logfwd.sources.http.settings import HttpSource
from logreceiver.sinks.log.sink import read_records
from streams.errors import ConfigError
from streams.security import rotation
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.patience import PATIENCE_SECONDS


async def test_a_link_is_rotated_without_loss_or_repeats(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "ROTATE_SECONDS", 0.5)
    written = 0
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address)
        async with forwarding(config) as forwarder:
            while len(found(events, "link rotating")) < 2:
                installation.append(*lines(20, written))
                written += 20
                await asyncio.sleep(0.02)
            await eventually(lambda: acknowledged(forwarder) == written)
    assert installation.stored() == lines(written)
    assert len(found(events, "link failed")) == 0


async def test_a_link_is_kept_while_no_other_can_be_made(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        installation.append(*lines(10))
        await eventually(lambda: acknowledged(forwarder) == 10)
        service.listeners[0]._servers[0].close()
        monkeypatch.setattr(rotation, "ROTATE_SECONDS", 0.0)
        await eventually(lambda: len(found(events, "link rotation failed")) > 1)
        installation.append(*lines(10, 10))
        await eventually(lambda: acknowledged(forwarder) == 20)
    assert not found(events, "link failed")


async def test_a_receiver_takes_a_new_certificate_and_keeps_its_links(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            installation.parties.leaf("receiver", identities=["renewed"], hosts=["localhost"], force=True)
            await service.reload(lambda: service.config)
            installation.append(*lines(10, 10))
            await eventually(lambda: acknowledged(forwarder) == 20)
            link = forwarder.describe()[0]["link"]
        assert link["age_seconds"] > 0
        assert len(found(events, "certificate reloaded")) == 1
        installation.parties.receiver.certificate.write_text("not a certificate")
        await service.reload_certificates()
        assert len(found(events, "certificate reload failed")) == 1
        await service.reload(lambda: service.config)
        (rejected,) = found(events, "config rejected")
        assert "tls.certificate: cannot be used" in rejected["problems"][0]
    assert len(found(events, "link failed")) == 0


async def test_certificates_that_a_reload_has_taken_are_not_read_once_more(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        installation.parties.leaf("receiver", identities=["renewed"], hosts=["localhost"], force=True)
        await service.reload(lambda: service.config)
        for _ in range(2):
            await service.reload_certificates()  # as whoever looks for changed files does from time to time
        assert len(found(events, "certificate reloaded")) == 1
        installation.parties.leaf("receiver", identities=["again"], hosts=["localhost"], force=True)
        for _ in range(2):
            await service.reload_certificates()
        assert len(found(events, "certificate reloaded")) == 2


async def test_a_stream_is_added_by_a_reload_and_none_is_removed(installation: Installation, events: Events) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
        config = installation.forwarder_config(address)
        twin = installation.stream(name="pq-stream", mirror_of="http", source=None)
        both = installation.forwarder_config(address, installation.stream(), twin)
        async with forwarding(config) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            assert (await forwarder.reload(lambda: both)).outcome == "taken"
            installation.append(*lines(10, 10))
            await eventually(lambda: acknowledged(forwarder) == 20 and acknowledged(forwarder, "pq-stream") == 10)
            other = installation.forwarder_config(address, installation.stream(name="x"))
            assert (await forwarder.reload(lambda: other)).outcome == "refused"
            assert (await forwarder.reload(blank)).outcome == "refused"
            assert {row["stream"] for row in forwarder.describe()} == {"http", "pq-stream"}
    assert installation.stored() == lines(20)
    assert installation.stored("pq-stream") == lines(10, 10)
    assert len([event for event in events if event["event"] == "config rejected"]) == 2


async def test_a_twin_that_is_removed_while_its_batches_wait_is_named_at_the_reload_and_at_the_next_start(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
        twin = installation.stream(name="copy", mirror_of="http", source=None, receivers=("localhost:1",))
        both, alone = (installation.forwarder_config(address, installation.stream(), *more) for more in ((twin,), ()))
        async with forwarding(both) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            assert found(events, "spool of a removed stream") == []
            assert (await forwarder.reload(lambda: alone)).outcome == "taken"
            await eventually(lambda: len(found(events, "spool of a removed stream")) == 1)
        async with forwarding(alone):
            await eventually(lambda: len(found(events, "spool of a removed stream")) == 2)
    for told in found(events, "spool of a removed stream"):
        assert told["stream"] == "copy"
        assert told["bytes"] > 0


async def test_a_forwarder_goes_on_after_a_reload_that_changes_its_only_stream(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
        changed = installation.forwarder_config(address, installation.stream(window=1))
        async with forwarding(installation.forwarder_config(address)) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            assert (await forwarder.reload(lambda: changed)).outcome == "taken"
            assert not forwarder.finished.is_set()
            installation.append(*lines(10, 10))
            await eventually(lambda: acknowledged(forwarder) == 20)
    assert installation.stored() == lines(20)


async def test_what_is_bound_at_the_start_waits_for_a_restart_and_the_rest_is_taken(
    installation: Installation, events: Events
) -> None:
    config = installation.forwarder_config("localhost:1")
    elsewhere = installation.directory / "elsewhere"
    moved = msgspec.structs.replace(
        config, state_dir=elsewhere, admin=Admin(address="127.0.0.1:0"), receivers=("localhost:2",)
    )
    async with forwarding(config) as forwarder:
        report = await forwarder.reload(lambda: moved)
        assert (report.outcome, report.taken, report.waits) == ("taken", ("receivers",), ("state_dir", "admin"))
        assert forwarder.config.receivers == ("localhost:2",)
        assert forwarder.config.admin is None
        assert forwarder._reloading.troubles() == {"config": "waits for a restart: state_dir, admin"}
    assert not elsewhere.exists()


async def test_a_forwarder_that_is_stopped_while_it_starts_ends_at_once(
    installation: Installation, events: Events
) -> None:
    async with forwarding(installation.forwarder_config("localhost:1")):
        pass
    assert not found(events, "batches left in spool")


@pytest.mark.parametrize("receiver_is_there", [True, False])
async def test_batches_are_said_to_be_left_in_the_spool_only_where_there_are_any(
    installation: Installation, events: Events, receiver_is_there: bool
) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address if receiver_is_there else "localhost:1"
        config = msgspec.structs.replace(installation.forwarder_config(address), stop_grace_seconds=0.0)
        async with forwarding(config) as forwarder:
            installation.append(*lines(10))
            if receiver_is_there:
                await eventually(lambda: acknowledged(forwarder) == 10, 60)
            else:
                await eventually(lambda: any(row["spool"]["batches"] for row in forwarder.describe()), 60)
    assert bool(found(events, "batches left in spool")) is not receiver_is_there


def blank() -> ForwarderConfig:
    raise ConfigError([])


async def test_two_forwarders_do_not_share_a_state_directory(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address)
        async with forwarding(config):
            with pytest.raises(ConfigError, match="in use by another logfwd"):
                async with forwarding(config):
                    pass


def test_programs_stop_cleanly_at_sigterm_and_say_what_is_wrong_with_a_config(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        site.write_forwarder(site.start_receiver())
        site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n')
        (tmp_path / "http.log").write_text("".join(f"{line}\n" for line in lines(50)))
        site.start_forwarder()
        assert site.wait_until_acknowledged(50, ["http"], PATIENCE_SECONDS)
        assert (site.forwarder.stop(), site.receiver.stop()) == (0, 0)
        shutil.rmtree(tmp_path / "streams.d")
        site.forwarder.start()
        assert site.forwarder.wait() == 78
        assert "streams" in site.forwarder.tail()
        with pytest.raises(ConfigError):
            load_forwarder(tmp_path / "logfwd.toml")


def test_standard_input_is_sent_to_its_end_and_the_forwarder_ends_with_it(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        site.write_forwarder(site.start_receiver())
        site.write_stream("http", '[source]\ntype = "stdin"\n')
        text = "".join(f"{line}\n" for line in lines(5000)) + '{"unfinished":true}'
        done = subprocess.run(site.forwarder.argv, input=text.encode(), capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        site.receiver.stop()
        stored = [bytes(record.value or b"").decode() for record in read_records(tmp_path / "log", "http")]
    assert stored == [*lines(5000), '{"unfinished":true}']


async def test_a_stream_that_gets_another_type_of_source_drops_its_old_positions_and_says_so(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        files = installation.forwarder_config(service.listeners[0].address)
        of_clients = installation.stream(source=HttpSource(address=f"unix:{installation.directory}/in.sock"))
        clients = installation.forwarder_config(service.listeners[0].address, of_clients)
        installation.append(*lines(10))
        async with forwarding(files) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 10)
            assert (await forwarder.reload(lambda: clients)).outcome == "taken"
            await eventually(lambda: found(events, "positions dropped"))
        async with forwarding(clients) as forwarder:  # nothing is left to drop
            await eventually(lambda: not forwarder._ready())
        (event,) = found(events, "positions dropped")
        # two positions: that of its file, and the note that its first scan was made
        assert (event["sources"], event["source"], event["positions"]) == (["file"], "http", 2)
        async with forwarding(files) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 20)
    assert installation.stored() == lines(10) * 2, "its files are new ones"
