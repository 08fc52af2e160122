"""What is wrong shows in /readyz, with whose words say why, until it is mended."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from logfwd import health
from logfwd.definition import SpoolLimits
from logfwd.sources.settings import FileSource
from logreceiver.config import Ledger
from logreceiver.service import Service
from logreceiver.sinks.settings import LogSink
from streams.config.units import MIB
from tests.support.installation import Installation, eventually, forwarding, running

pytestmark = pytest.mark.usefixtures("events")


def trouble(service: Service) -> str:
    return "; ".join(f"{part}: {reason}" for part, reason in service._degraded().items())


async def test_a_refused_stream_is_told_of_in_the_receiver_s_words_and_counted_since_it_was_welcome(
    installation: Installation,
) -> None:
    async with running(installation.receiver_config(streams=("other",))) as service:
        config = installation.forwarder_config(service.listeners[0].address)
        async with forwarding(config) as forwarder:
            await eventually(lambda: "http/link" in forwarder.troubles())
            first = forwarder.describe()[0]["unlinked_seconds"]
            failures = forwarder.metrics.link_failures.labels("http", "not_allowed")
            seen = failures._value.get()
            await eventually(lambda: failures._value.get() >= seen + 2)
            assert forwarder.describe()[0]["unlinked_seconds"] > first + 0.1
            assert "spiffe://test/forwarder may not write stream 'http'" in forwarder.troubles()["http/link"]
            assert dict(forwarder._ready()) == {}
            assert forwarder.registry.get_sample_value("logfwd_health_reasons", {"severity": "degraded"}) == 1


async def test_a_receiver_that_is_away_is_told_of_after_a_while(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "UNLINKED_SECONDS", 0.2)
    async with forwarding(installation.forwarder_config("127.0.0.1:1")) as forwarder:
        why = "127.0.0.1:1: cannot connect: Connection refused"
        await eventually(lambda: forwarder.troubles().get("http/link", "").endswith(why))


async def test_a_key_that_cannot_be_used_is_told_of_while_the_old_link_is_still_there(
    installation: Installation,
) -> None:
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address)
        async with forwarding(config) as forwarder:
            await eventually(lambda: forwarder.describe() and forwarder.describe()[0]["state"] == "connected")
            key = config.tls.key
            assert key is not None
            right = key.read_bytes()
            key.write_bytes((installation.directory / "pki" / "ca.key").read_bytes())
            (pipeline,) = forwarder._pipelines()
            pipeline.senders[0]._rotate()
            await eventually(lambda: "http/link" in forwarder.troubles())
            assert "no new link can be made, the old one is in use: " in forwarder.troubles()["http/link"]
            key.write_bytes(right)
            await eventually(lambda: forwarder.troubles() == {})


async def test_a_full_spool_that_the_source_waits_for_is_not_ready(installation: Installation) -> None:
    limits = SpoolLimits(max_spool_bytes=1 * MIB)
    installation.append(*(f'{{"n":"{number:0>900}{number * 7919}"}}' for number in range(60_000)))
    stream = installation.stream(spool=limits, codec="none")
    async with forwarding(installation.forwarder_config("127.0.0.1:1", stream)) as forwarder:
        await eventually(lambda: "http/spool" in forwarder._ready())
        assert "max_spool_bytes" in forwarder._ready()["http/spool"]


async def test_a_file_that_cannot_be_read_is_told_of(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "round.log").symlink_to("round.log")
    source = FileSource(paths=(str(installation.source), str(tmp_path / "*.log")), scan_seconds=0.05)
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        async with forwarding(config) as forwarder:
            await eventually(lambda: "http/source" in forwarder.troubles())
            assert "round.log" in forwarder.troubles()["http/source"]
            (tmp_path / "round.log").unlink()
            await eventually(lambda: forwarder.troubles() == {})


async def test_a_receiver_tells_of_a_reload_that_was_taken_in_part_and_of_certificates_that_were_not(
    installation: Installation,
) -> None:
    config = installation.receiver_config()
    async with running(config) as service:
        moved = msgspec.structs.replace(config, sink=LogSink(directory=installation.directory / "elsewhere"))
        report = await service.reload(lambda: moved)
        assert report.waits
        assert trouble(service).startswith("config: waits for a restart: sink")
        await service.reload(lambda: config)
        assert trouble(service) == ""
        path = config.tls.certificate
        assert path is not None
        right = path.read_bytes()
        path.write_text("garbage")
        await service.reload_certificates()
        assert "certificates: the new files are not in use: " in trouble(service)
        path.write_bytes(right)
        await service.reload_certificates()
        assert trouble(service) == ""


async def test_a_refused_reload_is_told_of_with_its_problems(installation: Installation) -> None:
    config = installation.receiver_config()
    async with running(config) as service:
        broken = msgspec.structs.replace(config, grant_key_file=installation.directory / "none")
        await service.reload(lambda: broken)
        assert "config: the last reload was refused: invalid; " in trouble(service)
        assert "/none: can" in trouble(service)


async def test_a_ledger_that_cannot_be_written_is_told_of_and_holds_nobody_up(installation: Installation) -> None:
    config = msgspec.structs.replace(installation.receiver_config(), ledger=Ledger(topic="books"))
    async with running(config) as service:
        ledger = service._shared.ledger
        assert ledger is not None
        ledger.trouble = "topic books: the topic does not exist"
        assert trouble(service) == "ledger: cannot be written, streams are not held up: " + ledger.trouble
        assert dict(service._ready()) == {}
        ledger.trouble = ""
