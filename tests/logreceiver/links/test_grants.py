"""A grant covers one claim, whatever the texts in it are."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from logreceiver.links.grants import Claim, Grants

CLAIM = Claim("identity", "stream", "cluster", "topic", 1, 2)
TEXTS = st.text("ab0:", max_size=3)


def test_moving_a_letter_from_one_field_to_the_next_makes_another_claim() -> None:
    fields = Claim.__struct_fields__[:4]
    for left, right in itertools.pairwise(fields):
        one: dict[str, Any] = {left: "a", right: "bc"}
        other: dict[str, Any] = {left: "ab", right: "c"}
        assert structs.replace(CLAIM, **one).encode() != structs.replace(CLAIM, **other).encode()
    assert (
        structs.replace(CLAIM, partition=1, producer_id=23).encode()
        != structs.replace(CLAIM, partition=12, producer_id=3).encode()
    )


@given(*[st.builds(Claim, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(-1, 12), st.integers(-1, 12))] * 2)
def test_a_grant_is_honoured_for_its_own_claim_alone(one: Claim, other: Claim) -> None:
    grants = Grants({"new": b"n" * 16, "old": b"o" * 16})
    assert grants.honours(grants.sign(one), one)
    assert grants.honours(grants.sign(one), other) == (one == other)
