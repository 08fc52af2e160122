"""Two forwarders with copies of one state directory: nothing of either is lost, and the receiver says what it sees."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from functools import partial

import msgspec

from logfwd.forwarder import Forwarder
from logfwd.sources.settings import FileSource
from tests.support.installation import (
    Events,
    Installation,
    acknowledged,
    eventually,
    forwarding,
    found,
    lines,
    running,
)


def has_acknowledged(forwarder: Forwarder, records: int) -> bool:
    return acknowledged(forwarder) == records


async def test_two_copies_of_a_forwarder_lose_nothing_repeat_nothing_and_are_noticed(
    installation: Installation, events: Events
) -> None:
    clones_input = installation.directory / "another-host" / "http.log"
    clones_input.parent.mkdir()
    clones_input.touch()
    async with running(installation.receiver_config()) as service:
        original = installation.forwarder_config(service.listeners[0].address)
        installation.append(*lines(100))
        async with forwarding(original) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 100)
        shutil.copytree(original.state_dir, installation.directory / "copied")
        with contextlib.closing(sqlite3.connect(installation.directory / "copied" / "http.spool")) as spool, spool:
            spool.execute("DELETE FROM positions")  # on another host there is no such file
        source = FileSource(paths=(str(clones_input),), scan_seconds=0.05)
        clone = msgspec.structs.replace(
            original, state_dir=installation.directory / "copied", streams=(installation.stream(source=source),)
        )
        async with forwarding(original) as first, forwarding(clone) as second:
            for step in range(1, 4):
                installation.append(*lines(100, 100 * step))
                with clones_input.open("a") as out:
                    out.write("".join(f"{line}\n" for line in lines(100, 100 * step + 1000)))
                for forwarder in (first, second):
                    await eventually(partial(has_acknowledged, forwarder, 100 + 100 * step))
    stored = installation.stored()
    own, copies = lines(400), lines(300, 1100)
    assert Counter(stored) == Counter([*own, *copies])
    assert [line for line in stored if line in set(own)] == own
    assert [line for line in stored if line in set(copies)] == copies
    assert found(events, "clone suspected")
