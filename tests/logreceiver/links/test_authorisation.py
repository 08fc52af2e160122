"""Which rule decides, and what a refusal says."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from logreceiver.config import Allow, Deny, Drain
from logreceiver.links.authorisation import Denied, Permit, Verdict, authorise, judge
from streams.errors import Code

HOST, DNS = "spiffe://site/host-1", "host-1.site"
RULES = (
    Allow(identity="spiffe://site/*", streams=("http", "audit-*"), modes=("hybrid",)),
    Allow(identity="*.site", streams=("*",), modes=("classical", "hybrid"), topic="all-{stream}"),
)
OLD = Drain(topic="old-{stream}", until="2027-01-31")


def test_an_old_topic_may_be_drained_up_to_a_day() -> None:
    permit = authorise((replace(RULES[0], drains=(OLD,)),), [HOST], "http", "hybrid")
    assert permit.covers("http", "2040-01-01")
    assert [permit.covers("old-http", f"2027-{day}") for day in ("01-01", "01-31", "02-01")] == [True, True, False]
    assert not permit.covers("old-{stream}", "2027-01-01")
    assert not authorise(RULES, [HOST], "http", "hybrid").covers("old-http", "2027-01-01")


def test_the_first_rule_for_identity_and_stream_decides() -> None:
    assert authorise(RULES, [HOST], "audit-1", "hybrid") == Permit(HOST, "audit-1")
    assert authorise(RULES, [DNS], "audit-1", "hybrid") == Permit(DNS, "all-audit-1")


def test_the_name_that_the_rule_allowed_is_the_identity_not_the_first_one() -> None:
    assert authorise(RULES, [HOST, DNS], "dns", "hybrid") == Permit(DNS, "all-dns")
    assert authorise(RULES, [DNS, HOST], "http", "hybrid") == Permit(HOST, "http")


def test_a_stream_may_only_be_written_in_a_mode_of_a_rule() -> None:
    with pytest.raises(Denied, match="may write stream 'http' in mode hybrid, not 'classical'"):
        authorise(RULES, [HOST], "http", "classical")


def test_a_later_rule_does_not_give_what_a_narrower_one_before_it_withholds() -> None:
    rules = (
        Allow(identity="pay-*", streams=("audit",), modes=("hybrid",), topic="audit"),
        Allow(identity="*", streams=("*",), modes=("hybrid", "classical"), topic="misc"),
    )
    assert authorise(rules, ["pay-1"], "audit", "hybrid") == Permit("pay-1", "audit")
    assert authorise(rules, ["web-1"], "audit", "classical") == Permit("web-1", "misc")
    with pytest.raises(Denied, match=r"^pay-1 may write stream 'audit' in mode hybrid, not 'classical'$"):
        authorise(rules, ["pay-1"], "audit", "classical")
    with pytest.raises(Denied, match=r"^pay-1 may write"):
        authorise(rules, ["web-1", "pay-1"], "audit", "classical")


@pytest.mark.parametrize(
    ("identities", "stream", "why"),
    [([], "http", "names no identity"), (["spiffe://other/x"], "http", "may not write"), ([HOST], "dns", "may not")],
)
def test_what_no_rule_allows_is_denied(identities: list[str], stream: str, why: str) -> None:
    with pytest.raises(Denied, match=why):
        authorise(RULES, identities, stream, "hybrid")


def test_patterns_match_whole_names_and_their_case() -> None:
    rules = (Allow(identity="spiffe://site/host-?", streams=("http",)),)
    assert authorise(rules, [HOST], "http", "hybrid").identity == HOST
    for identity, stream in (("spiffe://site/HOST-1", "http"), (f"{HOST}0", "http"), (HOST, "HTTP"), (HOST, "http-2")):
        with pytest.raises(Denied):
            authorise(rules, [identity], stream, "hybrid")


def test_a_later_rule_does_not_replace_the_topic_of_the_first_that_fits() -> None:
    rules = (
        Allow(identity="*", streams=("a",), topic="first"),
        Allow(identity="*", streams=("*",), topic="{stream}-2"),
    )
    assert authorise(rules, [HOST], "a", "hybrid").topic == "first"
    assert authorise(rules, [HOST], "b", "hybrid").topic == "b-2"


def test_the_streams_name_replaces_every_placeholder_of_a_topic() -> None:
    rules = (Allow(identity="*", streams=("*",), topic="{stream}.of.{stream}"),)
    assert authorise(rules, [HOST], "http", "hybrid").topic == "http.of.http"


def test_a_rule_for_another_stream_or_identity_does_not_explain_a_refusal() -> None:
    with pytest.raises(Denied, match=r"^spiffe://site/host-1 may not write stream 'metrics'$"):
        authorise(RULES, [HOST], "metrics", "classical")
    with pytest.raises(Denied, match=r"in mode classical, hybrid, not 'classical-tls12'$"):
        authorise(RULES, [DNS], "http", "classical-tls12")


def test_a_name_that_is_shut_out_takes_the_rights_of_the_others_with_it() -> None:
    deny = (Deny(identity="spiffe://site/host-[12]"),)
    for names in ([HOST], [DNS, HOST], [HOST, DNS]):
        with pytest.raises(Denied, match=r"^spiffe://site/host-1 is shut out$") as caught:
            authorise(RULES, names, "http", "hybrid", deny=deny)
        assert caught.value.code is Code.REVOKED
    assert authorise(RULES, ["spiffe://site/host-3"], "http", "hybrid", deny=deny).topic == "http"


def test_an_open_link_is_judged_by_the_rules_of_now() -> None:
    permit = authorise(RULES, [HOST], "http", "hybrid")

    def verdict(*allow: Allow, deny: tuple[Deny, ...] = ()) -> Verdict | None:
        return judge(permit.identity, permit.topic, allow, [HOST], "http", "hybrid", deny=deny)

    assert verdict(*RULES) is None
    shut_out = verdict(*RULES, deny=(Deny(identity=HOST),))
    assert shut_out is not None
    assert shut_out.at_once
    assert verdict(replace(RULES[0], drains=(OLD,))) is None
    for allow in (RULES[1], replace(RULES[0], modes=("classical",)), replace(RULES[0], topic="other")):
        gone = verdict(allow)
        assert gone is not None
        assert (gone.code, gone.at_once) == (Code.NOT_ALLOWED, False)
