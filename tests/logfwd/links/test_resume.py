"""What a refusal, or a grant that is not honoured, leads to: the rules that a model of the broker does not reach."""

from __future__ import annotations

from logfwd.links.resume import (
    NOT_GRANTED_PATIENCE_SECONDS,
    REFUSALS_ALONE,
    Answer,
    GoOn,
    Recovery,
    Remedy,
    Reset,
    Wait,
)
from logfwd.spool.rows import Row, Run
from streams.errors import Code

ROW = Row(1, 1, 1, record_count=1, size=10)
RUN = Run(1, "cluster", "topic", "id", 0, 1000)
NOTHING_STORED = Answer("cluster", "id", -1, -1)


def refused(recovery: Recovery, row: Row, *, alone: bool) -> Remedy:
    return recovery.refused(row, Code.INVALID_RECORD, permanent=True, uncertain=False, alone=alone, now=0.0)


def test_a_batch_that_is_refused_in_company_is_never_a_dead_letter() -> None:
    recovery = Recovery()
    assert [refused(recovery, ROW, alone=False) for _ in range(10)] == [Remedy.BACK_OFF] * 10
    assert recovery.must_send_alone(ROW)


def test_a_batch_that_is_refused_alone_three_times_is_a_dead_letter() -> None:
    recovery = Recovery()
    remedies = [refused(recovery, ROW, alone=True) for _ in range(REFUSALS_ALONE)]
    assert remedies == [Remedy.BACK_OFF] * (REFUSALS_ALONE - 1) + [Remedy.DEAD_LETTER]


def test_refusals_in_company_do_not_count_towards_those_alone() -> None:
    recovery = Recovery()
    refused(recovery, ROW, alone=False)
    refused(recovery, ROW, alone=False)
    assert [refused(recovery, ROW, alone=True) for _ in range(2)] == [Remedy.BACK_OFF] * 2


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
