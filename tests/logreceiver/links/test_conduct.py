"""How fast an identity may go, and what breaking a rule costs it."""

from __future__ import annotations

from logreceiver.links.conduct import FORGIVEN_SECONDS, Conduct, Register
from streams.config.units import MIB


def test_each_breach_costs_twice_the_last_up_to_a_minute_and_is_forgiven_in_time() -> None:
    conduct, now = Conduct(0.0), 0.0
    found = []
    for _ in range(8):
        conduct.breached(now)
        found.append(conduct.penalty(now))
        assert conduct.penalty(now + found[-1]) == 0
        now += found[-1]
    assert found == [1, 2, 4, 8, 16, 32, 60, 60]
    conduct.breached(now + FORGIVEN_SECONDS + 61)
    assert conduct.penalty(now + FORGIVEN_SECONDS + 61) == 1


def test_the_register_is_bounded_and_keeps_who_was_here_last() -> None:
    register = Register()
    register.MOST = 3
    first = register.of("a", 0.0)
    for name in "bcab":
        assert (register.of(name, 0.0) is first) == (name == "a")
    register.of("d", 0.0)
    assert register.of("a", 0.0) is first
    assert list(register._known) == ["b", "d", "a"]


def test_bytes_beyond_the_rate_are_early_and_without_one_never() -> None:
    conduct = Conduct(0.0)
    assert conduct.early(1 << 40, None, 0.0) == 0
    assert conduct.early(16 * MIB, MIB, 0.0) == 0, "a burst"
    assert conduct.early(2 * MIB, MIB, 0.0) == 2.0
    assert conduct.early(MIB, MIB, 3.0) == 0


def test_a_rate_that_a_reload_has_changed_counts_at_once() -> None:
    conduct = Conduct(0.0)
    conduct.early(16 * MIB, MIB, 0.0)
    assert conduct.early(32 * MIB, 32 * MIB, 0.0) == 0
    assert conduct.early(32 * MIB, 32 * MIB, 0.0) == 1.0


def test_small_batches_beyond_the_share_are_ahead_and_large_ones_never() -> None:
    conduct = Conduct(0.0)
    small, large = Conduct.SMALL_BYTES - 1, Conduct.SMALL_BYTES
    share = int(Conduct.BATCHES_AT_ONCE)
    assert not any(conduct.is_ahead(large, 0.0) for _ in range(10 * share))
    assert [conduct.is_ahead(small, 0.0) for _ in range(share + 1)] == [False] * share + [True]
    assert not conduct.is_ahead(small, 1.0)


def test_an_identity_makes_twice_the_links_it_may_have_at_once_and_then_one_after_the_other() -> None:
    conduct = Conduct(0.0)
    assert not any(conduct.early_link(64, 0.0) for _ in range(128))
    assert [conduct.early_link(64, 0.0) for _ in range(3)] == [1 / 8, 2 / 8, 3 / 8]
    assert conduct.early_link(64, 60.0) == 0
    assert not any(conduct.early_link(1000, 60.0) for _ in range(2000)), "a reload has raised the limit"
