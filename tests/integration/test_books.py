"""What /metrics of real programs reports of the totals and the certificates, and that alerts can depend on it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography import x509

from logfwd.definition import Stream
from logfwd.forwarder import Forwarder
from logfwd.spool.store import Spool
from logreceiver.sinks import Kind, Outcome
from logreceiver.sinks.log.sink import LogSink
from streams.errors import Code
from streams.telemetry.metrics import CollectorRegistry
from tests.support.installation import Installation, acknowledged, eventually, forwarding, lines, running


async def test_an_uncertain_answer_of_the_sink_is_not_counted_as_a_refusal(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce, answers = LogSink.produce, [Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)]

    async def produce_late(sink: LogSink, *args: Any) -> Outcome:
        stored = await produce(sink, *args)
        return answers.pop() if answers else stored

    monkeypatch.setattr(LogSink, "produce", produce_late)
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        installation.append(*lines(10))
        await eventually(lambda: acknowledged(forwarder) == 10)
        batches = {
            outcome: service.registry.get_sample_value(
                "logreceiver_batches_total", {"stream": "http", "outcome": outcome}
            )
            for outcome in ("uncertain", "refused")
        }
    assert batches == {"uncertain": 1, "refused": None}


async def test_the_books_balance_while_records_wait_and_after_a_restart(installation: Installation) -> None:
    def books(forwarder: Forwarder) -> tuple[float | None, float | None]:
        list(forwarder.registry.collect())  # a scrape
        waiting, unaccounted = (
            forwarder.registry.get_sample_value(name, {"stream": "http"})
            for name in ("logfwd_spool_records", "logfwd_unaccounted_records")
        )
        return waiting, unaccounted

    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
    config = installation.forwarder_config(address)
    async with forwarding(config) as forwarder:  # into the void
        installation.append(*lines(10))
        await eventually(lambda: books(forwarder) == (10, 0))
    async with forwarding(config) as forwarder:
        await eventually(lambda: books(forwarder) == (10, 0))
        async with running(installation.receiver_config(address=address)):
            await eventually(lambda: books(forwarder) == (0, 0) and acknowledged(forwarder) == 10)


async def test_a_spool_keeps_the_definition_of_its_streams(installation: Installation) -> None:
    config = installation.forwarder_config("localhost:1")
    async with forwarding(config):
        path = config.state_dir / "http.spool"
        await eventually(path.exists)
    async with Spool(path) as spool:
        assert msgspec.json.decode(spool.definition, type=list[Stream]) == list(config.streams)


async def test_both_ends_tell_when_certificates_end_and_that_one_was_renewed(installation: Installation) -> None:
    def expiry(registry: CollectorRegistry, stream: str, owner: str) -> float | None:
        return registry.get_sample_value("tls_certificate_expiry_timestamp_seconds", {"stream": stream, "owner": owner})

    leaves = [installation.parties.receiver, installation.parties.forwarder]
    ends = [x509.load_pem_x509_certificate(leaf.certificate.read_bytes()).not_valid_after_utc for leaf in leaves]
    receiver_end, forwarder_end = (end.timestamp() for end in ends)
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
    ):
        await eventually(lambda: expiry(forwarder.registry, "http", "peer") == receiver_end)
        assert expiry(forwarder.registry, "", "own") == forwarder_end
        assert expiry(service.registry, "", "own") == receiver_end
        installation.parties.leaf("receiver", identities=["receiver"], hosts=["localhost"], days=400, force=True)
        await service.reload_certificates()
        renewed = expiry(service.registry, "", "own")
    assert renewed is not None
    assert renewed > receiver_end + 300 * 24 * 3600
