"""How programs take signals."""

from __future__ import annotations

import os

import pytest

from streams import program


@pytest.mark.parametrize(("apart_seconds", "exits"), [(60.0, []), (0.0, [1])])
def test_a_second_signal_stops_at_once_but_not_one_that_came_twice(
    monkeypatch: pytest.MonkeyPatch, apart_seconds: float, exits: list[int]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(program, "SAME_SIGNAL_SECONDS", apart_seconds)
    stop = program.Stop()
    stop.stop()
    assert stop.requested.is_set()
    stop.stop()
    assert codes == exits
