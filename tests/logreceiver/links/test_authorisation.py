"""Which rule decides, and what a refusal says."""

from __future__ import annotations

import pytest

from logreceiver.config import Allow
from logreceiver.links.authorisation import Denied, Permit, authorise

HOST, DNS = "spiffe://site/host-1", "host-1.site"
RULES = (
    Allow(identity="spiffe://site/*", streams=("http", "audit-*"), modes=("hybrid",)),
    Allow(identity="*.site", streams=("*",), modes=("classical", "hybrid"), topic="all-{stream}"),
)


def test_the_first_rule_for_identity_stream_and_mode_decides() -> None:
    assert authorise(RULES, [HOST], "audit-1", "hybrid") == Permit(HOST, "audit-1")
    assert authorise(RULES, [DNS], "audit-1", "hybrid") == Permit(DNS, "all-audit-1")


def test_the_name_that_the_rule_allowed_is_the_identity_not_the_first_one() -> None:
    assert authorise(RULES, [HOST, DNS], "dns", "hybrid") == Permit(DNS, "all-dns")
    assert authorise(RULES, [DNS, HOST], "http", "hybrid") == Permit(HOST, "http")


def test_a_stream_may_only_be_written_in_a_mode_of_a_rule() -> None:
    with pytest.raises(Denied, match="may write stream 'http' in mode hybrid, not 'classical'"):
        authorise(RULES, [HOST], "http", "classical")
    assert authorise(RULES, [HOST, DNS], "http", "classical") == Permit(DNS, "all-http"), "a later rule may allow it"


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
