"""Which receiver is asked while none can serve."""

from __future__ import annotations

from logfwd.links.rounds import ROUND_SECONDS, Rounds


def test_a_stream_with_one_receiver_stays_and_lets_it_hold_its_answer() -> None:
    rounds = Rounds(1)
    assert rounds.may_wait
    assert [rounds.cannot_serve(at * ROUND_SECONDS) for at in range(5)] == [False] * 5
    assert rounds.may_wait


def test_each_of_several_is_asked_once_and_the_last_one_is_stayed_with() -> None:
    rounds = Rounds(3)
    asked = [(rounds.may_wait, rounds.cannot_serve(0.0)) for _ in range(3)]
    assert asked == [(False, True), (False, True), (False, False)]
    assert rounds.may_wait
    assert not rounds.cannot_serve(ROUND_SECONDS - 1)


def test_once_a_minute_the_others_are_asked_again() -> None:
    rounds = Rounds(2)
    assert [rounds.cannot_serve(0.0), rounds.cannot_serve(1.0)] == [True, False]
    assert [rounds.cannot_serve(ROUND_SECONDS), rounds.cannot_serve(ROUND_SECONDS + 1)] == [False, True]
    assert not rounds.may_wait
    assert not rounds.cannot_serve(ROUND_SECONDS + 2)
    assert rounds.may_wait


def test_a_receiver_without_a_link_counts_on_a_round_and_only_there() -> None:
    rounds = Rounds(2)
    rounds.no_link()
    assert not rounds.may_wait, "nobody has said yet that it cannot serve"
    assert rounds.cannot_serve(0.0)
    rounds.no_link()
    assert rounds.may_wait


def test_who_serves_ends_the_round() -> None:
    rounds = Rounds(2)
    rounds.cannot_serve(0.0)
    rounds.cannot_serve(0.0)
    rounds.serves()
    assert not rounds.may_wait
