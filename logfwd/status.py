"""The state of the forwarder's streams: the rows of /api/v1/streams. docs/api.md explains each field.

Every open live page asks for them once a second, on the loop that moves the batches: no cost here may grow with
records, batches or time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from logfwd.links.sender import Sender
from logfwd.metrics import ForwarderMetrics
from logfwd.pipeline import Pipeline
from logfwd.sources.file.source import FileTail
from logfwd.sources.settings import kind_of
from streams.security.transport import Link
from streams.telemetry.counts import counts

MOST_FILES = 20
UNANSWERED_SECONDS = 1.0
"""A receiver that has owed an answer for longer than this is shown as not answering."""


def rows(pipelines: Iterable[Pipeline], metrics: ForwarderMetrics) -> list[dict[str, Any]]:
    """One row per stream, twins after their originals."""
    faults = {
        "link_failures": counts(metrics.link_failures, "stream", "reason"),
        "resets": counts(metrics.run_resets, "stream", "reason"),
        "policy_violations": counts(metrics.policy_violations, "stream", "reason"),
        "downgrades": counts(metrics.downgrades, "stream", "reason"),
    }
    return [
        _row(sender, pipeline.source.lag_bytes(), metrics)
        | {"faults": {kind: by_stream.get(sender.stream.name, {}) for kind, by_stream in faults.items()}}
        for pipeline in pipelines
        for sender in pipeline.senders
    ]


def source(pipelines: Iterable[Pipeline], stream: str) -> dict[str, Any] | None:
    """What a stream reads, for whoever looks at it alone; None if there is no such stream."""
    for pipeline in pipelines:
        if any(sender.stream.name == stream for sender in pipeline.senders):
            settings = pipeline.original.source
            files, more = pipeline.source.files(MOST_FILES) if isinstance(pipeline.source, FileTail) else ([], 0)
            return {"type": settings and kind_of(settings), "files": files, "more_files": more}
    return None


def _row(sender: Sender, source_lag_bytes: int, metrics: ForwarderMetrics) -> dict[str, Any]:
    stream, backlog, totals = sender.stream, sender.backlog, sender.backlog.totals
    return {
        "stream": stream.name,
        "twin_of": stream.mirror_of,
        "mode": stream.security,
        "topic": sender.delivery.topic or None,
        "state": _state(sender),
        "link": None if sender.link is None else _link(sender.link),
        "unlinked_seconds": round(sender.unlinked_seconds, 3),
        "last_failure": None if sender.delivery.last_failure is None else sender.delivery.last_failure._asdict(),
        "unanswered_seconds": round(sender.unanswered_seconds, 3),
        "unacknowledged_batches": sender.unacknowledged,
        "records": {
            "accepted": totals.accepted,
            "invalid": totals.invalid,
            "acknowledged": totals.acknowledged,
            "dropped": totals.dropped,
            "dead_lettered": totals.dead_lettered,
        },
        "acknowledged_bytes": backlog.acknowledged_bytes,
        "resets": totals.resets,
        "spool": {
            "batches": backlog.waiting_batches,
            "records": backlog.waiting_records,
            "bytes": backlog.waiting_bytes,
            "oldest_seconds": round(metrics.oldest_seconds(backlog), 3),
        },
        "source_lag_bytes": source_lag_bytes,
        "handshake_seconds": metrics.handshake_seconds.summary(stream.name),
        "batch_duration_seconds": metrics.batch_duration.summary(stream.name),
    }


def _state(sender: Sender) -> str:
    if sender.link is None:
        return "disconnected"
    if sender.unanswered_seconds > UNANSWERED_SECONDS:
        return "unanswered"
    return "connected" if sender.connected else "connecting"


def _link(link: Link) -> dict[str, Any]:
    facts, age = link.facts, link.age
    return {
        "receiver": link.peer,
        "group": facts.group,
        "version": facts.version,
        "cipher": facts.cipher,
        "authentication": facts.authentication,
        "stack": facts.stack,
        "age_seconds": round(age, 3),
        "since": round(time.time() - age, 3),
        "connect_seconds": facts.connect_seconds,
        "handshake_seconds": facts.handshake_seconds,
        "handshake_bytes": {"in": facts.bytes_in, "out": facts.bytes_out},
        "identity": next(iter(facts.identities), None),
        "certificate_expires": facts.expires,
    }
