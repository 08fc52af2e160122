"""What the receiver reports about streams: the rows of /api/v1/streams. docs/api.md explains each field.

There may be thousands of forwarders, so links are counted, and only the newest few of each stream are listed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from logreceiver.links.session import Session
from logreceiver.metrics import ReceiverMetrics
from streams.telemetry.counts import counts

NEWEST_LINKS = 10
LINKS_A_TURN = 100


def rows(sessions: Iterable[Session], metrics: ReceiverMetrics) -> list[dict[str, Any]]:
    """One row for each stream that has or had a link here, under the name that metrics count it by."""
    live: defaultdict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        if session.guest is not None:
            live[session.guest.label].append(session)
    totals = {
        "batches": counts(metrics.batches, "stream", "outcome"),
        "records": counts(metrics.records, "stream", "outcome"),
        "bytes": counts(metrics.bytes, "stream", "outcome"),
    }
    groups = counts(metrics.links, "stream", "group")
    return [
        _row(stream, live.get(stream, []), groups[stream])
        | {kind: by_stream.get(stream, {}) for kind, by_stream in totals.items()}
        | {
            "handshake_seconds": metrics.handshake_seconds.summary(stream),
            "sink_seconds": metrics.sink_seconds.summary(stream),
        }
        for stream in sorted(groups)
    ]


async def links(sessions: Iterable[Session]) -> list[dict[str, Any]]:
    """One row for each; there may be thousands, so others have their turn meanwhile."""
    found = []
    for number, session in enumerate(list(sessions)):
        if session.guest is not None:
            found.append({"stream": session.guest.hello.stream, **session.describe()})
        if number % LINKS_A_TURN == 0:
            await asyncio.sleep(0)
    return found


def _row(stream: str, live: list[Session], groups: dict[str, int]) -> dict[str, Any]:
    newest = heapq.nsmallest(NEWEST_LINKS, live, key=lambda session: session.age)
    hellos = [session.guest.hello for session in newest if session.guest is not None]
    return {
        "stream": stream,
        "twin_of": next((hello.twin_of for hello in hellos), "") or None,
        "modes": sorted({hello.mode for hello in hellos}),
        "links": sum(groups.values()),
        "links_by_group": {group: links for group, links in groups.items() if links},
        "newest_links": [session.describe() for session in newest],
    }
