"""What a refusal, or a grant that is not honoured, leads to: the rules that a model of the broker does not reach."""

from __future__ import annotations

import pytest

from logfwd.links.resume import (
    NOT_GRANTED_PATIENCE_SECONDS,
    REFUSED_SECONDS,
    Answer,
    GoOn,
    Recovery,
    Remedy,
    Repeat,
    Reset,
    Wait,
)
from logfwd.spool.rows import Row, Run
from streams.errors import Code

ROW = Row(1, 1, 1, record_count=1, size=10)
RUN = Run(1, "cluster", "topic", "id", 0, 1000)
NOTHING_STORED = Answer("cluster", "id", -1, -1)
TIMES = (0.0, 1.0, 2.0, REFUSED_SECONDS - 1, REFUSED_SECONDS)


def refused(recovery: Recovery, row: Row, *, alone: bool, now: float = 0.0, stored: int = 1) -> Remedy:
    code = Code.INVALID_RECORD
    return recovery.refused(row, code, permanent=True, uncertain=False, alone=alone, now=now, stored_meanwhile=stored)


def test_a_batch_that_is_refused_in_company_is_never_a_dead_letter() -> None:
    recovery = Recovery()
    assert [refused(recovery, ROW, alone=False, now=at) for at in TIMES] == [Remedy.BACK_OFF] * len(TIMES)
    assert recovery.must_send_alone(ROW)


def test_a_batch_that_is_refused_alone_three_times_over_minutes_while_others_are_stored_is_a_dead_letter() -> None:
    recovery = Recovery()
    remedies = [refused(recovery, ROW, alone=True, now=at) for at in TIMES]
    assert remedies == [Remedy.BACK_OFF] * (len(TIMES) - 1) + [Remedy.DEAD_LETTER]


def test_two_refusals_alone_are_not_enough_however_long_they_are_apart() -> None:
    recovery = Recovery()
    refused(recovery, ROW, alone=False)
    refused(recovery, ROW, alone=False)
    assert [refused(recovery, ROW, alone=True, now=at) for at in (0.0, 10 * REFUSED_SECONDS)] == [Remedy.BACK_OFF] * 2


def test_where_nothing_else_is_stored_it_may_be_the_broker_and_the_batch_is_kept() -> None:
    recovery = Recovery()
    assert {refused(recovery, ROW, alone=True, now=at, stored=0) for at in (*TIMES, 1e6)} == {Remedy.BACK_OFF}
    assert recovery.is_stuck(ROW, 1e6)


def test_an_acknowledgement_in_between_clears_a_batch_of_suspicion() -> None:
    recovery = Recovery()
    refused(recovery, ROW, alone=True)
    refused(recovery, ROW, alone=True)
    recovery.acknowledged()
    assert refused(recovery, ROW, alone=True, now=10 * REFUSED_SECONDS) is Remedy.BACK_OFF


@pytest.mark.parametrize("code", [Code.TOO_LARGE, Code.CORRUPT, Code.INVALID_RECORD])
def test_a_batch_that_is_stored_is_passed_over_whatever_is_said_against_it(code: Code) -> None:
    stored = Row(1, 1, 1, record_count=3, size=10, base_sequence=0)
    known = Answer("cluster", "id", 0, stored.last_sequence)
    recovery = Recovery()
    for _ in range(5):
        assert recovery.plan(RUN, [stored], known, 0.0) in (Repeat(stored), GoOn(behind=stored))
        assert recovery.refused(stored, code, permanent=True, uncertain=False, alone=True, now=0.0) is Remedy.ASK
    assert recovery.plan(RUN, [stored], known, 0.0) == GoOn(behind=stored)
    recovery.acknowledged()
    assert recovery.plan(RUN, [stored], known, 0.0) == Repeat(stored), "it is another batch's turn to be passed over"


def test_a_batch_that_is_not_known_to_be_stored_is_split_as_before() -> None:
    recovery = Recovery()
    large = Row(1, 1, 1, record_count=3, size=10, base_sequence=0)
    recovery.plan(RUN, [large], NOTHING_STORED, 0.0)
    assert recovery.refused(large, Code.TOO_LARGE, permanent=True, uncertain=False, alone=True, now=0.0) is Remedy.SPLIT


def test_a_grant_that_no_receiver_honours_for_an_hour_is_given_up() -> None:
    recovery = Recovery()
    assert isinstance(recovery.not_granted(0.0), Wait)
    assert isinstance(recovery.not_granted(NOT_GRANTED_PATIENCE_SECONDS - 1), Wait)
    assert recovery.not_granted(NOT_GRANTED_PATIENCE_SECONDS) == Reset("not_granted", new_producer=True)


def test_a_grant_that_was_honoured_meanwhile_has_its_hour_again() -> None:
    recovery = Recovery()
    assert isinstance(recovery.not_granted(0.0), Wait)
    assert recovery.plan(RUN, [], NOTHING_STORED, 10.0) == GoOn()
    assert isinstance(recovery.not_granted(NOT_GRANTED_PATIENCE_SECONDS), Wait)
    assert isinstance(recovery.not_granted(2 * NOT_GRANTED_PATIENCE_SECONDS - 1), Wait)
    assert isinstance(recovery.not_granted(2 * NOT_GRANTED_PATIENCE_SECONDS), Reset)
