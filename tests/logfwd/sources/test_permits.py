"""Permits to read: few at once, in the order of asking, and none kept by a stream that cannot use it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from logfwd.sources import permits as permits_module
from logfwd.sources.file.source import FileTail
from logfwd.sources.permits import Permit, Permits
from logfwd.sources.settings import FileSource
from tests.support.installation import eventually
from tests.support.pipelines import a_moment

NEVER_SECONDS = 3600.0


@pytest.fixture(autouse=True)
def they_do_not_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits_module, "LONGEST_SECONDS", NEVER_SECONDS)


async def test_permits_go_to_those_who_wait_in_their_order() -> None:
    permits = Permits(2)
    first, second, third, fourth = (permits.for_a_stream() for _ in range(4))
    got: list[Permit] = []

    async def take(permit: Permit) -> None:
        await permit.take()
        got.append(permit)

    await take(first)
    assert not permits.are_used_up
    await take(second)
    assert permits.are_used_up
    waiting = [asyncio.create_task(take(each)) for each in (third, fourth)]
    await a_moment()
    assert got == [first, second]
    second.give_back()
    await waiting[0]
    assert got == [first, second, third]
    first.give_back()
    await waiting[1]
    assert got == [first, second, third, fourth]


async def test_a_permit_is_taken_once_and_given_back_once() -> None:
    permits = Permits(2)
    one, other, third = (permits.for_a_stream() for _ in range(3))
    await one.take()
    await one.take()
    assert not permits.are_used_up, "one stream has one"
    one.give_back()
    one.give_back()
    for each in (one, other):
        await each.take()
    assert permits.are_used_up
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(third.take(), 0.05)
    one.give_back()
    await third.take()


async def test_a_permit_that_is_held_for_long_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    permits = Permits(1)
    slow, other = permits.for_a_stream(), permits.for_a_stream()
    monkeypatch.setattr(permits_module, "LONGEST_SECONDS", 0.01)
    await slow.take()
    monkeypatch.setattr(permits_module, "LONGEST_SECONDS", NEVER_SECONDS)
    await asyncio.wait_for(other.take(), 60)
    slow.give_back()
    assert permits.are_used_up, "the other one has it now"


async def test_an_expiry_ends_with_its_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    permits = Permits(1)
    stream = permits.for_a_stream()
    monkeypatch.setattr(permits_module, "LONGEST_SECONDS", 0.02)
    await stream.take()
    stream.give_back()
    monkeypatch.setattr(permits_module, "LONGEST_SECONDS", NEVER_SECONDS)
    await stream.take()
    await a_moment()
    assert permits.are_used_up


async def test_a_stream_that_can_use_nothing_has_no_permit_and_gets_none() -> None:
    permits = Permits(1)
    full, other = permits.for_a_stream(), permits.for_a_stream()
    await full.take()
    with full.not_needed():
        await asyncio.wait_for(other.take(), 60)
        other.give_back()
        again = asyncio.create_task(full.take())
        await a_moment()
        assert not again.done()
        assert not permits.are_used_up
    await asyncio.wait_for(again, 60)
    assert permits.are_used_up


async def test_files_are_read_with_a_permit_which_is_given_back_when_more_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("1\n")
    permits = Permits(1)
    permit, other = permits.for_a_stream(), permits.for_a_stream()
    await other.take()
    source = FileTail(FileSource(paths=(f"{tmp_path}/*.log",)), max_record_bytes=1000, permit=permit)
    async with aclosing(source.blocks({})) as blocks:
        pull = asyncio.ensure_future(anext(blocks))
        await a_moment()
        assert not pull.done(), "another stream has the permit"
        other.give_back()
        while not (await pull).data:
            pull = asyncio.ensure_future(anext(blocks))
        assert permits.are_used_up, "the block is not sealed yet"
        pull = asyncio.ensure_future(anext(blocks))
        await eventually(lambda: not permits.are_used_up)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)


async def test_a_source_that_ends_gives_its_permit_back(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("1\n")
    permits = Permits(1)
    source = FileTail(FileSource(paths=(f"{tmp_path}/*.log",)), max_record_bytes=1000, permit=permits.for_a_stream())
    async with aclosing(source.blocks({})) as blocks:
        await anext(blocks)
        assert permits.are_used_up
    assert not permits.are_used_up
