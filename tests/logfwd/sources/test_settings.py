"""The [source] table: every type has a source, and what only one stream can read is claimed once."""

from __future__ import annotations

from typing import get_args

import pytest

from logfwd.sources.front import Front
from logfwd.sources.make import Context, make_source
from logfwd.sources.settings import TYPES, Claims, FileSource, SourceSettings, StdinSource

EXAMPLES: tuple[SourceSettings, ...] = (FileSource(paths=("a.log",)), StdinSource())


def test_there_is_an_example_of_every_type() -> None:
    assert {type(each) for each in EXAMPLES} == set(get_args(SourceSettings))
    assert sorted(TYPES) == ["file", "stdin"]


@pytest.mark.parametrize("settings", EXAMPLES, ids=TYPES)
def test_every_type_has_a_source(settings: SourceSettings) -> None:
    with Front().open("s") as handle:
        source = make_source(settings, Context(1000, 1000, handle))
    assert source.lag_bytes() == 0
    assert source.forgotten() == []
    assert source.stop() == []
    assert source.health() == {}


def test_files_may_be_read_by_several_streams_and_standard_input_by_one() -> None:
    claims = Claims()
    for stream in ("a", "b"):
        assert list(claims.conflicts(stream, FileSource(paths=("a.log",)))) == []
    assert list(claims.conflicts("a", StdinSource())) == []
    assert list(claims.conflicts("a", StdinSource())) == [], "a stream does not conflict with itself"
    for stream in ("b", "c"):
        ((key, message),) = claims.conflicts(stream, StdinSource())
        assert (key, message) == ("source.type", "stdin is read by stream 'a' already; only one stream can read it")
