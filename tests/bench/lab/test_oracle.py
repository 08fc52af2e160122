"""The oracle must be able to say no."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from bench.lab.oracle import Finding, judge


def values(numbers: Iterable[int], source: str = "a") -> list[bytes]:
    return [json.dumps({"n": n, "stream": source}).encode() for n in numbers]


@pytest.mark.parametrize(
    ("stored", "wrong"),
    [
        (values(range(9)), {"missing": 1}),
        (values([]), {"missing": 10}),
        (values([*range(10), 3]), {"twice": 1}),
        (values([0, 1, 2, 4, 3, 5, 6, 7, 8, 9]), {"out_of_order": 1}),
        (values([5, 6, 7, 8, 9, 0, 1, 2, 3, 4]), {"out_of_order": 5}),
        (values(range(11)), {"foreign": 1}),
        ([*values(range(10)), *values([0], source="b")], {"foreign": 1}),
        ([*values(range(10)), b"not json", b"[]", b"{}"], {"foreign": 3}),
        ([*values(range(5)), *values(range(5))], {"missing": 5, "twice": 5}),
    ],
)
def test_whatever_is_wrong_with_a_topic_is_counted(stored: list[bytes], wrong: dict[str, int]) -> None:
    finding = judge("s", 10, stored, source="a")
    counted = {name: getattr(finding, name) for name in ("missing", "twice", "out_of_order", "foreign")}
    assert counted == {"missing": 0, "twice": 0, "out_of_order": 0, "foreign": 0} | wrong
    assert not finding.exact


def test_a_topic_that_holds_each_record_once_in_order_is_exact() -> None:
    assert judge("s", 10, values(range(10)), source="a") == Finding("s", 10, 10, 0, 0, 0)
    assert judge("s", 10, values(range(10)), source="a").exact


def test_records_that_are_not_promised_may_be_missing_but_not_wrong() -> None:
    assert judge("s", 10, values([0, 1, 2, 5, 6, 7, 8, 9]), source="a", may_be_lost=[range(2, 5)]).exact
    assert judge("s", 10, values(range(10)), source="a", may_be_lost=[range(2, 5)]).exact
    one_more = judge("s", 10, values([0, 2, 5, 6, 7, 8, 9]), source="a", may_be_lost=[range(2, 5)])
    assert (one_more.missing, one_more.excused, one_more.exact) == (1, 2, False)
    twice = judge("s", 10, values([*range(10), 3]), source="a", may_be_lost=[range(2, 5)])
    assert (twice.twice, twice.exact) == (1, False)
