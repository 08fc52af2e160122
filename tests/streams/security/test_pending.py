"""Who has to make room for whom among the handshakes of a listener."""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from streams.security.pending import SILENT_SECONDS, Pending, source_of


@dataclass(eq=False)
class Peer:
    host: str
    heard_bytes: int = 1
    heard_at: float = 0.0


def filled(*hosts: str, heard: int = 1) -> tuple[Pending[Peer], list[Peer]]:
    """A full table."""
    table, peers = Pending[Peer](len(hosts)), [Peer(host, heard) for host in hosts]
    assert [table.enter(peer, 0.0) for peer in peers] == [None] * len(hosts)
    return table, peers


def test_while_there_is_room_everybody_is_let_in() -> None:
    table, peers = filled(*["10.0.0.1"] * 3)
    table.leave(peers[0])
    assert table.enter(Peer("10.0.0.1"), 0.0) is None


def test_who_has_been_silent_for_longest_goes_first() -> None:
    table, peers = filled("10.0.0.1", "10.0.0.2", "10.0.0.3", heard=0)
    peers[0].heard_at = 0.9 * SILENT_SECONDS
    assert table.enter(new := Peer("10.0.0.9"), SILENT_SECONDS / 2) is new, "they have just come"
    assert table.enter(Peer("10.0.0.9"), SILENT_SECONDS) is peers[1]
    assert table.enter(Peer("10.0.0.9"), SILENT_SECONDS) is peers[2]
    assert len(table) == 3


def test_who_stops_in_the_middle_makes_room_and_who_waits_for_us_does_not() -> None:
    table, peers = filled(*["10.0.0.1"] * 3, heard=1500)
    peers[0].heard_at, peers[1].heard_at = math.inf, SILENT_SECONDS
    assert table.enter(Peer("10.0.0.1"), 1.5 * SILENT_SECONDS) is peers[2]
    assert table.enter(new := Peer("10.0.0.1"), 1.5 * SILENT_SECONDS) is new


def test_then_the_slowest_of_the_source_with_most_of_them() -> None:
    table, peers = filled("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2")
    peers[0].heard_bytes = peers[2].heard_bytes = 500
    assert table.enter(Peer("10.0.0.3"), 0.0) is peers[1]
    assert table.enter(new := Peer("10.0.0.1"), 0.0) is new
    assert table.enter(new := Peer("10.0.0.2"), 0.0) is new, "no source has two more than it would have"


def test_one_source_alone_keeps_the_places_that_it_has() -> None:
    table, _ = filled(*["10.0.0.1"] * 5)
    assert all(table.enter(new, 0.0) is new for new in (Peer("10.0.0.1") for _ in range(3)))


def test_trusted_sources_need_no_room() -> None:
    table = Pending[Peer](1, [ip_network("10.1.0.0/16")])
    assert [table.enter(Peer("10.1.2.3"), 0.0) for _ in range(3)] == [None] * 3
    assert len(table) == 0
    assert table.enter(Peer("10.2.0.1"), 0.0) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("/run/socket", "/run/socket", True),
    ],
)
def test_a_source_is_whatever_may_be_one_host(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) == same
