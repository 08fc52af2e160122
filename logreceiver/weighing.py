"""What a reload would do to the links that are open, and whether that has to be confirmed first; no I/O.

A rule that was forgotten or mistyped would end links of hosts that nobody meant. So two things are not done unasked: to
end more than one link and more than half of them, and to take all rights from every link of a rule. Links that end for
[[deny]] or a revoked certificate do not count: there a person has said whom to shut out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from logreceiver.config import Allow
from logreceiver.links.authorisation import Verdict, rule_of
from logreceiver.links.guest import Guest

MOST_NAMED = 20
TOO_MANY = "it ends too many links"


class Ending(NamedTuple):
    """A link that has to end. `guest` is None if it has not said yet what it wants."""

    guest: Guest | None
    verdict: Verdict


def doubt(endings: Sequence[Ending], guests: Sequence[Guest | None], allow: Sequence[Allow]) -> str:
    """Why this has to be confirmed; empty if it need not be. `guests` of all open links, `allow` as it is in use."""
    by_rules = sum(not ending.verdict.at_once for ending in endings)
    if by_rules > 1 and 2 * by_rules > len(guests):
        return TOO_MANY
    shut_out = [ending.guest for ending in endings if ending.verdict.at_once]
    used = _links_by_rule(guests, allow) - _links_by_rule(shut_out, allow)
    lost = _links_by_rule([ending.guest for ending in endings if ending.verdict.takes_rights], allow)
    gone = sorted({allow[at].identity for at, links in lost.items() if links == used[at]})
    return f"it takes all rights from the links of [[allow]] {', '.join(gone)}" if gone else ""


def named(endings: Sequence[Ending]) -> tuple[str, ...]:
    """A sentence for each link that ends, some of them if they are many."""
    rows = sorted(
        f"{ending.guest.identity}, stream {ending.guest.hello.stream}: {ending.verdict.text}"
        for ending in endings
        if ending.guest is not None
    )
    more = len(rows) - MOST_NAMED
    return tuple(rows) if more <= 0 else (*rows[:MOST_NAMED], f"and {more} more")


def _links_by_rule(guests: Sequence[Guest | None], allow: Sequence[Allow]) -> Counter[int]:
    """How many of these links each rule lets in, by its place."""
    found: Counter[int] = Counter()
    for guest in guests:
        if guest is not None and (rule := rule_of(allow, guest.facts.identities, guest.hello.stream)) is not None:
            found[rule.place] += 1
    return found
