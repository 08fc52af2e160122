"""What a link puts into the ledger. No I/O; times are seconds since 1970."""

from __future__ import annotations

from logreceiver.ledger.records import BatchEntry, ReportEntry
from logreceiver.links.guest import Guest
from logreceiver.sinks import Kind, Outcome
from streams.records.batch import Header
from streams.wire import messages as m


def of_batch(guest: Guest, where: tuple[int, str, int], header: Header, outcome: Outcome, at: float) -> BatchEntry:
    """The entry of a stored batch; `where`: its run's number, topic and partition."""
    hello, facts, offset = guest.hello, guest.facts, outcome.base_offset
    run, topic, partition = where
    return BatchEntry(
        time_ms=int(at * 1000),
        stream=hello.stream,
        twin_of=hello.twin_of,
        identity=guest.identity,
        forwarder_id=hello.forwarder_id,
        boot_id=hello.boot_id,
        run=run,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        records=header.record_count,
        bytes=header.size,
        topic=topic,
        partition=partition,
        first_offset=offset,
        last_offset=offset + header.last_offset_delta if offset >= 0 else -1,
        outcome="stored" if outcome.kind is Kind.STORED else "duplicate",
        mode=hello.mode,
        group=facts.group,
        tls_version=facts.version,
        session_id=guest.session_id,
        authentication=facts.authentication,
        peer=guest.peer,
    )


def of_report(guest: Guest, run: int, report: m.Report, at: float) -> ReportEntry:
    """The entry of a forwarder's totals; `run` is the number of the open one, or −1."""
    hello = guest.hello
    return ReportEntry(
        time_ms=int(at * 1000),
        stream=hello.stream,
        twin_of=hello.twin_of,
        identity=guest.identity,
        forwarder_id=hello.forwarder_id,
        boot_id=hello.boot_id,
        run=run,
        accepted=report.accepted,
        acknowledged=report.acknowledged,
        dropped=report.dropped,
        dead_lettered=report.dead_lettered,
        resets=report.resets,
    )
