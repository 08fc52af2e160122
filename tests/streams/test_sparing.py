"""Log lines that others cause: a few at once, then one a second that counts the others, and none is forgotten."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from streams import sparing
from streams.sparing import AT_ONCE, Sparing
from tests.support.installation import eventually


async def test_a_flood_becomes_a_few_lines_that_count_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(sparing, "time", clock)
    monkeypatch.setattr(sparing, "PER_SECOND", 20.0)
    lines, few = Sparing(), list[int]()
    for _ in range(1000):
        lines.say("flood", few.append)
    assert len(few) == AT_ONCE
    other = list[int]()
    lines.say("other", other.append)
    assert other == [0], "another kind is not concerned"
    await eventually(lambda: len(few) + sum(few) == 1000)  # the end of the flood is told, too
    clock.monotonic = lambda: 1.0
    lines.say("flood", few.append)
    assert len(few) + sum(few) == 1001


async def test_kinds_are_bounded() -> None:
    lines, written = Sparing(), list[int]()
    lines.MOST_KINDS = 10
    for kind in range(100):
        lines.say(kind, written.append)
    assert written == [0] * 100
    assert len(lines._kinds) == 10
