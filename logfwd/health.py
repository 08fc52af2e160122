"""What is wrong with a forwarder's streams: the one place that everything asks which tells of it (docs/monitoring.md).

*Unready* is what keeps it from taking records: a full spool, a stream that does not run. *Degraded* is everything
else: records are taken and kept, and do not arrive, or not all that is there is taken. Reasons are by part: NAME for a
stream, NAME/PART for a part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from logfwd.links.sender import Sender
from logfwd.metrics import ForwarderMetrics
from logfwd.pipeline import Pipeline
from streams.errors import Code

UNLINKED_SECONDS = 30.0
"""A link that is away for less is none of an operator's business: receivers are restarted."""
STUCK_SECONDS = 30.0
RECENT_SECONDS = 90.0
"""What failed within them explains what is stuck now."""
REFUSALS = frozenset(
    {Code.NOT_ALLOWED, Code.REVOKED, Code.POLICY, Code.BAD_VERSION, Code.UNAUTHORISED, Code.TOPIC_MISSING}
)
"""Told at once: somebody has to change something."""


def degraded(pipelines: Iterable[Pipeline], metrics: ForwarderMetrics) -> Mapping[str, str]:
    """Why records do not arrive, or are not read."""
    return dict(reason for pipeline in pipelines for reason in _reasons(pipeline, metrics))


def _reasons(pipeline: Pipeline, metrics: ForwarderMetrics) -> Iterator[tuple[str, str]]:
    if unreadable := pipeline.unreadable():
        path, why = next(iter(unreadable.items()))
        more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        yield f"{pipeline.original.name}/source", f"cannot be read: {path}: {why}{more}"
    for sender in pipeline.senders:
        if reason := _of_link(sender, metrics.oldest_seconds(sender.backlog)):
            yield f"{sender.stream.name}/link", reason


def _of_link(sender: Sender, oldest_seconds: float) -> str:
    failure, seconds = sender.delivery.last_failure, sender.unlinked_seconds
    recent = failure is not None and time.time() - failure.at < RECENT_SECONDS
    why = f": {failure.detail or failure.reason}" if failure is not None and recent else ""
    if not sender.connected:
        refused = failure is not None and recent and failure.reason in REFUSALS
        if not refused and seconds < UNLINKED_SECONDS:
            return ""
        return f"{'refused' if refused else 'no link'} for {seconds:.0f} s{why}"
    if sender.rotation_failed:
        return f"no new link can be made, the old one is in use: {sender.rotation_failed}"
    if why and oldest_seconds >= STUCK_SECONDS:
        return f"nothing of it was stored for {oldest_seconds:.0f} s{why}"
    return ""
