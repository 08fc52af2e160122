"""How many links and handshakes a receiver has file descriptors for."""

from __future__ import annotations

from typing import NamedTuple

from logreceiver.config import ReceiverConfig
from streams import descriptors

OWN_DESCRIPTORS = 64
"""The program itself, its connections to the sink, and those who ask its admin address."""


class Room(NamedTuple):
    """`max_handshakes` is of each listener; `limit` and `wanted` are numbers of descriptors."""

    max_links: int
    max_handshakes: int
    limit: int
    wanted: int


def room_for(config: ReceiverConfig) -> Room:
    """Fewer than configured where the process may not have so many files open; the embedded log has its share."""
    limit, listeners = descriptors.limit(), len(config.listener)
    most, max_links = config.limits.max_handshakes, config.limits.max_links
    wanted = OWN_DESCRIPTORS + listeners * most + max_links * 4 // 3
    if limit < wanted:
        most = max(min(most, limit // (8 * listeners)), 1)
        left = limit - OWN_DESCRIPTORS - listeners * most
        max_links = min(max_links, max(left * 3 // 4, 1))
    return Room(max_links, most, limit, wanted)
