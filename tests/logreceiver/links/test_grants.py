"""A grant covers one claim, whatever the texts in it are."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from logreceiver.links.grants import Claim, Grants

CLAIM = Claim("identity", "stream", "cluster", "topic", 1, 2)
TEXTS = st.text("ab0:", max_size=3)


def test_moving_a_letter_from_one_field_to_the_next_makes_another_claim() -> None:
    fields = [field.name for field in dataclasses.fields(Claim)][:4]
    for left, right in itertools.pairwise(fields):
        one: dict[str, Any] = {left: "a", right: "bc"}
        other: dict[str, Any] = {left: "ab", right: "c"}
        assert dataclasses.replace(CLAIM, **one).encode() != dataclasses.replace(CLAIM, **other).encode()
    assert (
        dataclasses.replace(CLAIM, partition=1, producer_id=23).encode()
        != dataclasses.replace(CLAIM, partition=12, producer_id=3).encode()
    )


@given(*[st.builds(Claim, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(-1, 12), st.integers(-1, 12))] * 2)
def test_a_grant_is_honoured_for_its_own_claim_alone(one: Claim, other: Claim) -> None:
    grants = Grants({"new": b"n" * 16, "old": b"o" * 16})
    assert grants.honours(grants.sign(one), one)
    assert grants.honours(grants.sign(one), other) == (one == other)
