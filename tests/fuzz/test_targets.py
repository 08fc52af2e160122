"""Every fuzz target, with the same inputs at each run."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS

INPUTS, SECONDS = 300, 5.0


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_are_only_promised_errors_are_raised(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)
    count, findings = fuzz(TARGETS[name], SECONDS, seed=1, inputs=INPUTS)
    assert count
    assert findings == []
