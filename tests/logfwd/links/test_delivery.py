"""What a stream's delivery does with answers, on a real spool: nothing is sent before its commit, or with a fresh CRC
over damage; what may still be under way is waited for."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from logfwd.clocks import clock
from logfwd.definition import Stream
from logfwd.links.delivery import Delivery
from logfwd.links.resume import LATE_COPY_MARGIN_SECONDS, GoOn, Reset, Wait
from logfwd.metrics import ForwarderMetrics
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.store import Spool
from streams.errors import BatchCorrupt, SpoolError
from streams.telemetry.metrics import CollectorRegistry
from streams.wire import messages as m
from tests.support.spools import accept, backlog_of, grant, note_batch, number_of

ANSWER_TIMEOUT_SECONDS = 10.0
WELCOME = m.Welcome(m.VERSION, "session", "cluster", "topic", "id", 1 << 20, m.MAX_WINDOW, 0)
GRANT = m.Run(1, "topic", "id", 0, 1000, b"grant")
UNKNOWN = m.Run(1, "topic", "id", 0, 1000, b"grant", 0, 1_000_000)
"""An answer that leaves nothing but a reset."""


def delivery_of(spool: Spool, backlog: Backlog) -> Delivery:
    return Delivery(
        Stream(name="http"),
        backlog,
        spool,
        ForwarderMetrics(CollectorRegistry()),
        boot_id="boot",
        answer_timeout_seconds=ANSWER_TIMEOUT_SECONDS,
    )


async def test_a_batch_whose_commit_is_not_done_is_not_sent_though_it_is_stamped(tmp_path: Path) -> None:
    async with Spool(tmp_path / "spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        run = await grant(spool, backlog)
        delivery = delivery_of(spool, backlog)
        notes, (row,) = note_batch(spool, 1, backlog)
        assert row.base_sequence == 3, "it is stamped at once, because the link keeps up"
        assert await delivery.next_row(run, 1) is None
        await spool.commit(notes)
        row.committed_at = clock()
        assert await delivery.next_row(run, 1) is row


async def test_nothing_is_sent_before_its_stamp_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Spool(tmp_path / "spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        delivery = delivery_of(spool, backlog)
        run = backlog.head_run()
        assert run is not None
        assert await delivery.plan(run, WELCOME, GRANT) == GoOn()
        held, commit = asyncio.Event(), spool.commit

        async def hold(notes: Notes) -> None:
            await held.wait()
            await commit(notes)

        monkeypatch.setattr(spool, "commit", hold)
        asking = asyncio.create_task(delivery.next_row(run, 0))
        await asyncio.sleep(0.02)
        assert not asking.done()
        held.set()
        assert (await asking) is backlog.rows[0]


async def test_a_stamp_that_cannot_be_committed_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Spool(tmp_path / "spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        delivery = delivery_of(spool, backlog)
        run = backlog.head_run()
        assert run is not None
        await delivery.plan(run, WELCOME, GRANT)

        async def fail(_: Notes) -> None:
            raise SpoolError("the disk is gone")

        monkeypatch.setattr(spool, "commit", fail)
        with pytest.raises(SpoolError):
            await delivery.next_row(run, 0)


async def test_a_batch_that_rotted_on_disk_never_gets_a_fresh_crc(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        for number in range(2):
            await accept(spool, number, backlog)
        run = await grant(spool, backlog)
        bad, good = backlog.rows
        other = sqlite3.connect(path)
        (payload,) = other.execute("SELECT payload FROM blobs WHERE id = ?", (bad.blob,)).fetchone()
        flipped = bytes(payload[:-1]) + bytes([payload[-1] ^ 1])
        other.execute("UPDATE blobs SET payload = ? WHERE id = ?", (flipped, bad.blob))
        other.commit()
        other.close()
        delivery = delivery_of(spool, backlog)
        with pytest.raises(BatchCorrupt):
            await delivery.stamped_payload(bad, run, 0)
        assert number_of(await delivery.stamped_payload(good, run, 0)) == 1
        await delivery.dead_letter(bad, "rotten", "CRC")
        assert list(backlog.rows) == [good]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT code FROM dead_letters").fetchall() == [("rotten",)]
    connection.close()


@pytest.mark.parametrize("stamped", [True, False])
async def test_a_reset_after_a_restart_waits_for_copies_of_what_the_earlier_life_sent(
    tmp_path: Path, stamped: bool
) -> None:
    async with Spool(tmp_path / "spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        run = await grant(spool, backlog) if stamped else backlog.head_run()
        assert run is not None
        delivery = delivery_of(spool, backlog)
        if not stamped:
            await delivery.plan(run, WELCOME, GRANT)
            backlog.stamp(run, notes := Notes())
            await spool.commit(notes)
        plan = await delivery.plan(run, WELCOME, UNKNOWN)
        if not stamped:
            assert plan == Reset("unknown_sequence"), "this life has sent nothing yet"
            return
        assert isinstance(plan, Wait)
        assert 0 <= clock() + ANSWER_TIMEOUT_SECONDS + LATE_COPY_MARGIN_SECONDS - plan.until < 5


async def test_a_new_run_is_committed_with_its_grant_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        run = backlog.head_run()
        assert run is not None
        await delivery_of(spool, backlog).plan(run, WELCOME, GRANT)
    async with Spool(path) as again:
        reopened = backlog_of(again).head_run()
        assert reopened is not None
        assert (reopened.producer_id, reopened.grant, reopened.topic_id) == (1000, b"grant", "id")


async def test_a_reset_waits_as_long_as_the_slowest_receiver_may_take_over_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Spool(tmp_path / "spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, 0, backlog)
        run = await grant(spool, backlog)
        delivery = delivery_of(spool, backlog)
        began = clock()
        delivery.uncertain(backlog.rows[0])
        delivery.receiver_takes(1000.0)
        delivery.receiver_takes(0.0)
        plan = await delivery.plan(run, WELCOME, UNKNOWN)
        assert isinstance(plan, Wait)
        assert plan.until >= began + 1000.0 + LATE_COPY_MARGIN_SECONDS
