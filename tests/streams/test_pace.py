"""How often something may happen: on average, and at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.pace import Bucket


@given(st.lists(st.floats(0, 2), max_size=50))
def test_a_bucket_allows_its_rate_on_average_and_its_burst_at_once(pauses: list[float]) -> None:
    bucket, now, in_time = Bucket(5.0, 10.0, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        in_time += bucket.take(1, now) == 0
    assert in_time <= 10 + 5 * now + 1e-6
    assert bucket.take(0, now + 4.1) == 0, "what is remembered of a flood is bounded"


def test_who_is_too_early_is_told_by_how_much() -> None:
    bucket = Bucket(2.0, 3.0, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
