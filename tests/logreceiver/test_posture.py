"""The posture's arithmetic: shares, what is open, what expires, what is forgotten, what workers add up to."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from logreceiver.commands.posture import show
from logreceiver.posture import MAX_ACCOUNTS, Account, OpenLink, Posture, Report, SinkConnections, merge
from logreceiver.posture import report as make_report
from streams.security.endpoint import Facts
from streams.security.plain import NO_TLS

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=1)
HOST = "spiffe://site/host-1"


HYBRID = Facts(
    version="TLSv1.3",
    group="X25519MLKEM768",
    cipher="TLS_AES_128_GCM_SHA256",
    identities=(HOST,),
    authentication="ecdsa_secp256r1_sha256",
    certificate_algorithm="EC secp256r1",
    certificate_expires=NOW + timedelta(days=30),
)
CLASSICAL = replace(HYBRID, group="X25519")


def open_link(account: Account, facts: Facts = HYBRID, *, age_seconds: float = 1.0) -> OpenLink:
    return OpenLink(account, age_seconds, facts.certificate_expires)


def report(posture: Posture, *open_links: OpenLink) -> Report:
    return make_report(posture.accounts, open_links, since=START, now=NOW, forgotten=posture.forgotten)


def expiring(found: Report) -> list[tuple[str, float | None, int]]:
    return [(each.identity, each.days_left, each.open_links) for each in found.certificates]


def test_shares_are_of_the_links_and_bytes_of_one_stream_of_one_identity() -> None:
    posture = Posture()
    for facts, links, size in ((CLASSICAL, 1, 100), (HYBRID, 3, 300)):
        for _ in range(links):
            posture.opened("http", HOST, facts).bytes += size // links
    posture.opened("dns", HOST, CLASSICAL).bytes += 600
    dns, http = report(posture).streams
    assert (http.stream, http.links, http.bytes) == ("http", 4, 400)
    assert [(share.group, share.share_of_links, share.share_of_bytes) for share in http.shares] == [
        ("X25519MLKEM768", 0.75, 0.75),
        ("X25519", 0.25, 0.25),
    ]
    assert [(share.group, share.share_of_links) for share in dns.shares] == [("X25519", 1.0)]
    assert [(share.group, share.share_of_bytes) for share in report(posture).shares] == [
        ("X25519", 0.7),
        ("X25519MLKEM768", 0.3),
    ]


@pytest.mark.parametrize(
    "other",
    [
        replace(HYBRID, group="X25519"),
        replace(HYBRID, version="TLSv1.2"),
        replace(HYBRID, authentication="mldsa65"),
        replace(HYBRID, certificate_algorithm="ML-DSA-65"),
    ],
)
def test_group_version_authentication_and_certificate_algorithm_are_distinguished(other: Facts) -> None:
    posture = Posture()
    for facts in (HYBRID, other):
        posture.opened("http", HOST, facts)
    assert [share.share_of_links for share in report(posture).streams[0].shares] == [0.5, 0.5]


def test_open_links_are_reported_next_to_links_opened_since_the_start() -> None:
    posture = Posture()
    accounts = [posture.opened("http", HOST, HYBRID) for _ in range(3)]
    found = report(posture, open_link(accounts[0], age_seconds=5), open_link(accounts[1], age_seconds=7)).streams[0]
    assert (found.links, found.open_links, found.oldest_open_link_seconds) == (3, 2, 7)
    closed = report(posture).streams[0]
    assert (closed.links, closed.open_links, closed.oldest_open_link_seconds) == (3, 0, None)


def test_no_links_and_no_bytes_make_no_report_fail() -> None:
    assert report(Posture()).shares == []
    posture = Posture()
    posture.opened("http", HOST, HYBRID)
    assert report(posture).shares[0].share_of_bytes == 0


def test_certificates_stand_soonest_to_expire_first() -> None:
    posture = Posture()
    for host, days in (("b", 3.0), ("a", 90.0), ("c", -1.0)):
        posture.opened("http", host, replace(HYBRID, certificate_expires=NOW + timedelta(days=days)))
    assert expiring(report(posture)) == [("c", -1, 0), ("b", 3, 0), ("a", 90, 0)]


def test_a_replaced_certificate_is_reported_as_long_as_a_link_uses_it() -> None:
    posture = Posture()
    old = replace(HYBRID, certificate_expires=NOW + timedelta(days=2))
    account = posture.opened("http", HOST, old)
    posture.opened("dns", HOST, HYBRID)
    assert expiring(report(posture)) == [(HOST, 30, 0)]
    both = report(posture, open_link(account, old), open_link(account, HYBRID))
    assert expiring(both) == [(HOST, 2, 1), (HOST, 30, 1)]


def test_what_is_remembered_is_bounded_and_open_links_are_reported_nevertheless() -> None:
    posture = Posture(most=10)
    first = posture.opened("http", "host-0", HYBRID)
    for number in range(1, 100):
        posture.opened("http", f"host-{number}", HYBRID)
    found = report(posture, open_link(first))
    assert [each.identity for each in found.streams] == ["host-0", *(f"host-{number}" for number in range(90, 100))]
    assert (found.forgotten, found.links) == (90, 11)


def test_as_many_accounts_as_there_may_be_take_less_than_8_mb() -> None:
    tracemalloc.start()
    try:
        posture = Posture()
        for number in range(MAX_ACCOUNTS + 1):
            posture.opened(f"stream-{number % 7}", f"spiffe://site.example/host-{number:06}", HYBRID)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(posture.accounts), posture.forgotten) == (MAX_ACCOUNTS, 1)
    assert used_bytes < 8e6


def test_workers_add_up_over_json() -> None:
    one, other = Posture(), Posture()
    for _ in range(2):
        one.opened("http", HOST, HYBRID).bytes += 10
    account = other.opened("http", HOST, HYBRID)
    other.opened("http", HOST, CLASSICAL).bytes += 80
    reports = [report(one), report(other, open_link(account, age_seconds=9))]
    sent = [msgspec.json.decode(msgspec.json.encode(each), type=Report) for each in reports]
    (found,) = merge(sent).streams
    assert (found.links, found.open_links, found.bytes, found.oldest_open_link_seconds) == (4, 1, 100, 9)
    assert [(share.group, share.share_of_bytes) for share in found.shares] == [
        ("X25519", 0.8),
        ("X25519MLKEM768", 0.2),
    ]
    assert expiring(merge(sent)) == [(HOST, 30, 1)]
    assert merge(sent[:1]) == sent[0]


def test_the_sinks_connections_add_up_by_how_they_are_protected_while_open_and_afterwards() -> None:
    sink = SinkConnections()
    first, other, plain = (sink.opened(facts, at) for facts, at in ((HYBRID, 1.0), (HYBRID, 3.0), (NO_TLS, 4.0)))
    first.bytes, other.bytes, plain.bytes = 200, 100, 100
    sink.closed(first)
    hybrid, none = sink.shares(now=5.0)
    assert (hybrid.group, hybrid.links, hybrid.open_links, hybrid.bytes) == ("X25519MLKEM768", 2, 1, 300)
    assert (hybrid.authentication, hybrid.oldest_open_link_seconds) == ("ecdsa_secp256r1_sha256", 2.0)
    assert (hybrid.share_of_bytes, none.share_of_bytes) == (0.75, 0.25)
    assert (none.version, none.authentication) == ("none", "none")
    sink.closed(other)
    one = make_report([], [], since=START, now=NOW, sink=sink.shares(now=6.0))
    assert [(share.links, share.open_links, share.bytes) for share in one.sink] == [(2, 0, 300), (1, 1, 100)]
    assert [(share.links, share.bytes) for share in merge([one, one]).sink] == [(4, 600), (2, 200)]
    assert one.shares == [], "these are no links of forwarders"


def test_people_see_the_sinks_connections_below_the_links(capsys: pytest.CaptureFixture[str]) -> None:
    sink = SinkConnections()
    sink.opened(replace(HYBRID, authentication="rsa_pss_rsae_sha256"), 0.0).bytes = 1000
    show(make_report([], [], since=START, now=NOW, sink=sink.shares(now=61.0)), as_json=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "to the sink" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    ways = ["X25519MLKEM768", "TLSv1.3", "rsa_pss_rsae_sha256", "EC secp256r1"]
    assert cells == ["to the sink", "", *ways, "1", "100.00%", "1", "0:01:01", "1.00 kB", "100.00%"]


def test_a_merged_report_covers_the_time_of_all_workers() -> None:
    earlier, later = (
        make_report([], [], since=START + timedelta(hours=hours), now=NOW + timedelta(hours=hours)) for hours in (0, 1)
    )
    for merged in (merge([earlier, later]), merge([later, earlier])):
        assert (merged.since, merged.now) == (START, NOW + timedelta(hours=1))


def test_names_that_peers_chose_are_text_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    posture = Posture()
    posture.opened("[/x]\x1b[2J", "[bold]host", HYBRID)
    show(report(posture), as_json=False)
    shown = capsys.readouterr().out
    assert "[/x]\\x1b[2J" in shown
    assert "[bold]host" in shown
    assert "\x1b" not in shown
