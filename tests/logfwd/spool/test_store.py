"""The spool on a real disk: commits come back in order; damage and a full disk are reported clearly."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from logfwd.sources.keys import Key
from logfwd.sources.position import Position
from logfwd.spool.backlog import Backlog
from logfwd.spool.file import reader, writer
from logfwd.spool.notes import Notes
from logfwd.spool.rows import ROW_BYTES, ROW_ID_STEP, Row, Run, Totals
from logfwd.spool.salvage import replace_damaged
from logfwd.spool.schema import SCHEMA_VERSION
from logfwd.spool.shrink import KEEP_FREE_BYTES, reusable_bytes
from logfwd.spool.store import Spool
from streams.errors import SpoolError, SpoolFull
from streams.records.batch import Packed
from tests.support.installation import eventually
from tests.support.spools import fill
from tests.support.spools import position as position_at

MIB = 1024 * 1024


def packed(text: str, count: int = 2) -> Packed:
    return Packed(text.encode(), count, len(text))


def backlog_of(spool: Spool, stream: str = "http", *, max_bytes: int = 1 << 30, drops: bool = False) -> Backlog:
    return spool.backlog(stream, max_bytes=max_bytes, drops_oldest=drops)


def damage(path: Path) -> None:
    """Spoil the header, which costs nothing but the file."""
    with path.open("r+b") as file:
        file.write(b"damaged")


async def accept(
    spool: Spool, *backlogs: Backlog, text: str = "payload", count: int = 2, position: int = 0
) -> list[Row]:
    notes, batch = Notes(), packed(text, count)
    blob = spool.blobs.add(batch.payload, notes)
    rows = [row for backlog in backlogs for row in backlog.accept([batch], [blob], 0, 1.0, notes)]
    spool.blobs.discard_unused(blob, notes)
    notes.put_positions({"file": position_at(position)}, [])
    await spool.commit(notes)
    for row in rows:
        row.committed_at = 1.0
    return rows


async def test_batches_and_positions_come_back_together_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        for number in range(5):
            await accept(spool, backlog, text=f"batch {number}", position=number)
        forwarder_id = spool.forwarder_id
    async with Spool(path) as spool:
        assert spool.forwarder_id == forwarder_id
        assert spool.positions == {"file": position_at(4)}
        backlog = backlog_of(spool)
        assert [await spool.payload(row) for row in backlog.rows] == [f"batch {n}".encode() for n in range(5)]
        assert backlog.totals.accepted == 10


async def test_of_what_has_one_value_a_transaction_carries_out_the_last_note_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path):
        pass
    together, statements = Notes(), list[str]()
    for number in range(3):
        notes = Notes()
        notes.put_blob(number + 1, b"payload")
        notes.put_run("s", Run(1, next_sequence=number))
        notes.put_totals("s", Totals(accepted=number))
        notes.put_positions({"file": position_at(number)}, ["gone"])
        together.add(notes)
    together.delete_run("s", Run(1))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        together.carry_out(connection)
        connection.set_trace_callback(None)
        assert sorted(statement.split()[0] for statement in statements if not statement.startswith("BEGIN")) == (
            ["DELETE"] * 2 + ["INSERT"] * 6  # the last one of nothing, so that no payload stays
        )
        assert connection.execute("SELECT accepted FROM totals").fetchall() == [(2,)]
        assert connection.execute("SELECT value FROM positions").fetchall() == [(position_at(2).value,)]
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (3,)


def test_no_statement_keeps_a_payload_after_it_was_stored(tmp_path: Path) -> None:
    notes, executed = Notes(), list[str]()
    notes.put_blob(1, b"payload")
    with contextlib.closing(writer(tmp_path / "s.spool")) as connection:
        connection.set_trace_callback(executed.append)
        notes.carry_out(connection)
        stored = connection.execute("SELECT * FROM blobs").fetchall()
    of_payloads = [sql for sql in executed if sql.startswith("INSERT INTO blobs")]
    assert [b"payload".hex() in sql for sql in of_payloads] == [True, False]
    assert stored == [(1, b"payload")]


async def test_every_boot_seals_into_a_run_of_its_own(tmp_path: Path) -> None:
    for boot in range(3):
        async with Spool(tmp_path / "s.spool") as spool:
            backlog = backlog_of(spool)
            await accept(spool, backlog)
            assert [row.run for row in backlog.rows] == list(range(1, boot + 2))


async def test_the_last_definition_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path, definition="one") as spool:
        assert spool.definition == "one"
    async with Spool(path) as spool:
        assert spool.definition == "one"
    async with Spool(path, definition="two"):
        pass
    damage(path)
    async with Spool(path) as spool:
        assert spool.definition == "two"


async def test_a_position_is_deleted_after_it_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, soon = tmp_path / "s.spool", time.time() + 0.05
    positions = {
        "never": Position("push", b"1"),
        "soon": Position("push", b"2", soon),
        "late": Position("push", b"3", 4e9),
    }
    async with Spool(path) as spool:
        notes = Notes()
        notes.put_positions(positions, [])
        await spool.commit(notes)
    async with Spool(path) as spool:
        time.sleep(max(soon - time.time(), 0))
        monkeypatch.setattr("logfwd.spool.store.EXPIRY_SECONDS", 0)
        await spool.commit(Notes())
        with contextlib.closing(sqlite3.connect(path)) as reader:
            assert {key for (key,) in reader.execute("SELECT key FROM positions")} == {"never", "late"}
    async with Spool(path) as spool:
        assert spool.positions == {key: positions[key] for key in ("never", "late")}


async def test_a_position_that_expired_meanwhile_is_not_given_back(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        notes = Notes()
        notes.put_positions({"old": Position("push", b"1", time.time() + 0.01)}, [])
        await spool.commit(notes)
    time.sleep(0.02)
    async with Spool(tmp_path / "s.spool") as spool:
        assert spool.positions == {}


async def test_an_idle_spool_gives_its_free_pages_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logfwd.spool.committer.IDLE_SECONDS", 0.05)
    path = tmp_path / "s.spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        for number in range(40):
            await accept(spool, backlog, text=f"{number}" + "x" * MIB)
        notes = Notes()
        for row in list(backlog.rows)[1:]:
            backlog.dead_letter(row, "test", "", Notes())
            notes.delete_row(row)
            notes.delete_blob(row.blob)
        await spool.commit(notes)
        await eventually(lambda: path.stat().st_size < KEEP_FREE_BYTES + 4 * MIB)
        assert path.stat().st_size > KEEP_FREE_BYTES
        assert spool.has_disk_room()
        await accept(spool, backlog, text="and goes on")
    async with Spool(path) as spool:
        payloads = [await spool.payload(row) for row in backlog_of(spool).rows]
        assert [payload[:3] for payload in payloads] == [b"0xx", b"and"]
    with contextlib.closing(reader(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("pause", [0.0, 600.0])
async def test_while_there_are_commits_a_file_is_made_smaller_by_one_step_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """A quiet stream commits every few moments, so that its spool is never idle."""
    monkeypatch.setattr("logfwd.spool.committer.IDLE_SECONDS", 600)
    monkeypatch.setattr("logfwd.spool.shrink.BUSY_SECONDS", pause)
    path = tmp_path / "s.spool"
    async with Spool(path) as spool:
        notes = Notes()
        for blob in range(1, 41):
            notes.put_blob(blob, bytes(MIB))
        await spool.commit(notes)
        notes = Notes()
        for blob in range(1, 41):
            notes.delete_blob(blob)
        await spool.commit(notes)
        free = list[int]()
        with contextlib.closing(reader(path)) as connection:
            for _ in range(40):
                await spool.commit(Notes())
                free.append(reusable_bytes(connection))
        assert free[0] > 37 * MIB
        assert (free[-1] > 39 * MIB) if pause else (KEEP_FREE_BYTES - MIB < free[-1] <= KEEP_FREE_BYTES)


async def test_the_spool_and_its_log_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with Spool(tmp_path / "s.spool") as spool:
            await accept(spool, backlog_of(spool))
            modes = {found.name: found.stat().st_mode & 0o777 for found in tmp_path.glob("s.spool*")}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("s.spool", "s.spool-wal", "s.spool-shm"), 0o600)


async def test_every_rename_that_puts_a_spool_in_place_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite syncs the directory with its first log, which hides it if this is forgotten."""
    path, synced = tmp_path / "s.spool", list[set[str]]()
    monkeypatch.setattr(
        "logfwd.spool.file.sync_directory",
        lambda directory: synced.append({found.name for found in directory.iterdir()}),
    )
    writer(path).close()
    assert synced == [{"s.spool.ready"}, {"s.spool.ready"}, {"s.spool"}]
    damage(path)
    synced.clear()
    replace_damaged(path, "test", path.with_name("s.spool.suspect"))
    names = [{name.split("-2")[0] for name in names} for names in synced]
    assert names == [
        {"s.spool", "s.spool.ready"},
        {"s.spool.damaged", "s.spool.ready"},
        {"s.spool.damaged", "s.spool"},
    ]


async def test_a_stamp_survives_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, backlog)
        run = backlog.head_run()
        assert run is not None
        notes = Notes()
        backlog.grant(run, Run(1, "cluster", "topic", "id", 3, 1000, grant=b"grant"), notes)
        backlog.stamp(run, notes)
        await spool.commit(notes)
        await accept(spool, backlog)  # a granted run that keeps up is stamped in the transaction that spools
        assert [row.base_sequence for row in backlog.rows] == [0, 2]
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        run = backlog.head_run()
        assert run is not None
        assert (run.producer_id, run.partition, run.grant, run.next_sequence) == (1000, 3, b"grant", 4)
        assert [row.base_sequence for row in backlog.stamped(run)] == [0, 2]


async def test_an_acknowledged_batch_leaves_and_its_blob_with_the_last_stream_that_wanted_it(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path) as spool:
        original, twin = backlog_of(spool, "http"), backlog_of(spool, "pq-stream", drops=True)
        await accept(spool, original, twin)
        for backlog, blobs_left in ((original, 1), (twin, 0)):
            notes = Notes()
            run = backlog.head_run()
            assert run is not None
            backlog.grant(run, Run(1, "c", "t", "i", 0, 1000, grant=b"g"), notes)
            backlog.stamp(run, notes)
            backlog.acknowledge(backlog.rows[0], notes)
            spool.ride_along(notes)
            await spool.commit(Notes())
            with sqlite3.connect(path) as reader:
                assert reader.execute("SELECT count(*) FROM blobs").fetchone() == (blobs_left,)
                assert reader.execute("SELECT count(*) FROM batches").fetchone() == (blobs_left,)
            reader.close()
        assert original.totals.acknowledged == twin.totals.acknowledged == 2


async def test_deletions_are_committed_at_the_latest_when_the_spool_closes(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        rows = await accept(spool, backlog)
        notes = Notes()
        rows[0].base_sequence = 0
        backlog.acknowledge(rows[0], notes)
        spool.ride_along(notes)
    async with Spool(tmp_path / "s.spool") as spool:
        assert not backlog_of(spool).rows


async def test_a_full_twin_drops_its_oldest_and_never_what_was_stamped(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        twin = backlog_of(spool, "pq-stream", max_bytes=3 * (10 + ROW_BYTES), drops=True)
        await accept(spool, twin, text="0123456789")
        run = twin.head_run()
        assert run is not None
        notes = Notes()
        twin.grant(run, Run(1, "c", "t", "i", 0, 1000, grant=b"g"), notes)
        twin.stamp(run, notes)
        await spool.commit(notes)
        run.producer_id = -1  # later batches stay unstamped, as while a backlog waits
        for _ in range(4):
            await accept(spool, twin, text="0123456789")
        assert [row.base_sequence for row in twin.rows] == [0, None, None]
        assert (twin.totals.accepted, twin.totals.dropped) == (10, 4)
        assert twin.has_room(1 << 40)


async def test_an_original_that_blocks_has_no_room_beyond_its_budget(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool, max_bytes=10)
        assert backlog.has_room(1000)  # one batch always fits, or the stream would stand still forever
        await accept(spool, backlog, text="0123456789")
        assert not backlog.has_room(1)


async def test_a_dead_letter_keeps_its_bytes_and_its_reason(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        await accept(spool, backlog, text="cannot be stored")
        notes = Notes()
        backlog.dead_letter(backlog.rows[0], "too_large", "one record", notes)
        await spool.commit(notes)
    with sqlite3.connect(tmp_path / "s.spool") as reader:
        found = reader.execute("SELECT stream, code, record_count, payload FROM dead_letters").fetchall()
    reader.close()
    assert found == [("http", "too_large", 2, b"cannot be stored")]


async def test_halves_are_read_back_in_the_place_of_the_whole(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        for number in range(3):
            await accept(spool, backlog, text=f"{number}")
        notes = Notes()
        backlog.split(backlog.rows[1], (packed("1a", 1), packed("1b", 1)), notes)
        await spool.commit(notes)
    async with Spool(tmp_path / "s.spool") as spool:
        backlog = backlog_of(spool)
        assert [await spool.payload(row) for row in backlog.rows] == [b"0", b"1a", b"1b", b"2"]
        assert backlog.blobs.next_row_id() == 4 * ROW_ID_STEP


async def test_halves_of_halves_take_no_other_batch_s_place(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        backlog, twin = backlog_of(spool), spool.backlog("twin", max_bytes=1 << 30, drops_oldest=True)
        for one in (backlog, twin):
            await accept(spool, one, text="0", count=4)
        for left in (3, 2, 1):
            notes = Notes()
            backlog.split(backlog.rows[-1], (packed("a", 1), packed("b", left)), notes)
            await spool.commit(notes)
        for one in (backlog, twin):
            await accept(spool, one, text="1")
    async with Spool(tmp_path / "s.spool") as spool:
        backlog, twin = backlog_of(spool), spool.backlog("twin", max_bytes=1 << 30, drops_oldest=True)
        assert [await spool.payload(row) for row in backlog.rows] == [b"a", b"a", b"a", b"b", b"1"]
        assert [await spool.payload(row) for row in twin.rows] == [b"0", b"1"]


async def test_a_damaged_file_is_set_aside_and_the_forwarder_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    path.write_bytes(b"this was a database once" * 1000)
    async with Spool(path) as spool:
        await accept(spool, backlog_of(spool))
    aside = [found for found in tmp_path.iterdir() if "damaged" in found.name]
    assert [found.read_bytes()[:8] for found in aside] == [b"this was"]


async def test_a_spool_of_a_newer_version_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path):
        pass
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(SCHEMA_VERSION + 1),))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(SpoolError, match=r"s\.spool: made by a newer logfwd"):
        async with Spool(path):
            pass


async def test_a_failed_commit_breaks_the_spool_and_the_next_opening_has_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path) as spool:
        backlog = backlog_of(spool)
        await accept(spool, backlog, text="safe")
        notes = Notes()
        notes.statements.append(("INSERT INTO no_such_table VALUES (1)", ()))
        with pytest.raises(SpoolError):
            await spool.commit(notes)
        with pytest.raises(SpoolError):
            await accept(spool, backlog, text="too late")
    async with Spool(path) as spool:
        assert [await spool.payload(row) for row in backlog_of(spool).rows] == [b"safe"]
        assert spool.repeats_possible == set()  # closing the broken spool merged its log and lost nothing


async def test_a_closed_spool_answers_with_an_error_and_never_hangs(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        notes = Notes()
        spool.keys.put(bytes(16), Key(1, None, 1, 0, b"", 4e9), notes)
        done = spool.commit(notes)
    await done
    with pytest.raises(SpoolError, match="is closed"):
        await spool.key(bytes(16))
    with pytest.raises(SpoolError, match="is closed"):
        await spool.commit(Notes())


async def test_an_opening_that_fails_is_no_loss_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the open fails after SQLite has merged the log, which is then deleted."""
    path = tmp_path / "s.spool"
    await fill(path, checkpoint=False)

    def fail(*_: object) -> None:
        raise SpoolFull("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(SpoolFull):
        patched.setattr("logfwd.spool.store.reusable_bytes", fail)
        async with Spool(path):
            pass
    async with Spool(path) as spool:
        assert spool.repeats_possible == set()


async def test_a_full_database_is_reported_as_such_and_releases_the_reserve(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    async with Spool(path) as spool:
        assert path.with_suffix(".reserve").stat().st_size == 16 * MIB
        notes = Notes()
        notes.statements.append(("PRAGMA max_page_count = 1", ()))
        for blob in range(100):
            notes.put_blob(blob + 1, bytes(MIB))
        with pytest.raises(SpoolFull, match="free some space"):
            await spool.commit(notes)
        assert not path.with_suffix(".reserve").exists()
