"""Idempotency keys in the spool: the newest row of each is found, no other is taken for it, and old ones go."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logfwd.sources.keys import Key, key_hash
from logfwd.spool import keys as spool_keys
from logfwd.spool.file import read_key
from logfwd.spool.keys import BUDGET_SHARE, EXPIRY_STEP_SECONDS, MOST_DELETED, ROW_BYTES, Keys
from logfwd.spool.notes import Notes
from logfwd.spool.schema import make_tables, rows
from logfwd.spool.store import Spool
from streams.errors import SpoolCorrupt
from tests.support.spools import accept, backlog_of, waiting

NEVER = 4e9


def key(progress: int = 0, *, total: int | None = None, expires: float = NEVER) -> Key:
    return Key(progress, total, accepted=progress, invalid=0, digest=b"digest of the body so far", expires=expires)


def hashed(number: int) -> bytes:
    return key_hash("http", "client", str(number).encode())


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make_tables(connection)
        yield connection


def look_up(connection: sqlite3.Connection, keys: Keys, wanted: bytes) -> Key | None:
    row_id = keys.find(wanted)
    return None if row_id is None else read_key(connection, row_id, wanted)


def read_again(connection: sqlite3.Connection) -> Keys:
    keys = Keys()
    for row_id, its_hash, *_, expires in rows(connection, "keys", "ORDER BY id"):
        keys.adopt(row_id, its_hash, expires)
    return keys


HASHES = [prefix * 8 + suffix * 8 for prefix in (b"a", b"b", b"c") for suffix in (b"x", b"y")]
"""Keys of which two each begin alike: the index in memory cannot distinguish them."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(HASHES)),
        st.tuples(st.just("wait"), st.integers(1, 20)),
        st.tuples(st.just("trim")),
        st.tuples(st.just("open")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 30), st.integers(2, 8), st.integers(1, 4))
def test_keys_behave_like_a_dict_that_forgets_the_oldest(
    steps: list[tuple[object, ...]], window: int, max_keys: int, most_deleted: int
) -> None:
    now, model, order = 1000.0, dict[bytes, Key](), list[bytes]()
    gone: list[float] = []
    with pytest.MonkeyPatch.context() as patched, contextlib.closing(sqlite3.connect(":memory:")) as connection:
        patched.setattr(spool_keys, "MOST_DELETED", most_deleted)
        make_tables(connection)
        keys = Keys()
        keys.max_keys = max_keys

        def is_first(wanted: bytes) -> bool:
            """True if the index leads to the key, and not to another one that begins alike, which would be counted."""
            (own,) = connection.execute("SELECT max(id) FROM keys WHERE hash = ?", (wanted,)).fetchone()
            return own is not None and keys.find(wanted) == own

        for what, *arguments in steps:
            notes = Notes()
            match what, arguments:
                case "put", [bytes(wanted)]:
                    model[wanted] = key(len(order), expires=now + window)
                    order.append(wanted)
                    keys.put(wanted, model[wanted], notes)
                case "wait", [int(seconds)]:
                    now += seconds
                case "trim", []:
                    before = len(keys)
                    known = {wanted: look_up(connection, keys, wanted) for wanted in HASHES if is_first(wanted)}
                    keys.trim(now, notes)
                    assert before - len(keys) <= most_deleted
                    notes.carry_out(connection)
                    for wanted, found in known.items():
                        if found is not None and look_up(connection, keys, wanted) is None:
                            gone.append(found.expires - now)
                case "open", []:
                    keys, gone = read_again(connection), []
                    keys.max_keys = max_keys
            notes.carry_out(connection)
            assert len(keys) == connection.execute("SELECT count(*) FROM keys").fetchone()[0]
            recent = order[-max_keys:]
            for wanted in HASHES:
                found = look_up(connection, keys, wanted)
                assert found in (None, model.get(wanted))
                assert found is not None or wanted not in recent or model[wanted].expires <= now
        too_early, perhaps = (sum(left > at for left in gone) for at in (0, -EXPIRY_STEP_SECONDS))
        assert too_early <= keys.evicted <= perhaps
        while keys.trim(now + 1000, notes := Notes()):
            notes.carry_out(connection)
        assert len(keys) == 0


def test_a_key_that_begins_like_another_is_not_taken_for_it(connection: sqlite3.Connection) -> None:
    keys, notes = Keys(), Notes()
    one, other, third = b"8 bytes and one ", b"8 bytes or two  ", b"8 bytes or three"
    keys.put(one, key(1), notes)
    keys.put(other, key(2), notes)
    notes.carry_out(connection)
    assert look_up(connection, keys, one) == key(1)
    assert look_up(connection, keys, other) == key(2)
    assert look_up(connection, keys, third) is None


def test_a_hash_covers_stream_client_and_key_and_nothing_runs_together() -> None:
    hashes = {
        key_hash(stream, client, wanted)
        for stream, client in (("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"))
        for wanted in (b"", b"x", b"y")
    }
    assert len(hashes) == 12
    assert {len(found) for found in hashes} == {16}


async def test_progress_of_a_request_comes_back_with_what_it_belongs_to(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    for number in range(3):
        async with Spool(path) as spool:
            assert await spool.key(hashed(1)) == (key(number - 1) if number else None)
            notes = Notes()
            spool.keys.put(hashed(1), key(number), notes)
            spool.commit(notes)
            assert await spool.key(hashed(1)) == key(number)  # asked after the commit was handed in, not awaited
    async with Spool(path) as spool:
        notes = Notes()
        spool.keys.put(hashed(1), key(9, total=9), notes)
        await spool.commit(notes)
        found = await spool.key(hashed(1))
        assert found is not None
        assert found.finished


async def test_an_expired_key_is_unknown_at_once_and_deleted_by_a_later_commit(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        notes = Notes()
        spool.keys.put(hashed(1), key(expires=time.time() + 0.01), notes)
        spool.keys.put(hashed(2), key(expires=time.time() + 600), notes)
        await spool.commit(notes)
        time.sleep(0.02)
        assert await spool.key(hashed(1)) is None
        assert len(spool.keys) == 2
    async with Spool(path) as spool:
        time.sleep(spool_keys.EXPIRY_STEP_SECONDS)
        await spool.commit(Notes())
        assert len(spool.keys) == 1
        assert spool.keys.evicted == 0
        assert await spool.key(hashed(2)) is not None


async def test_a_transaction_deletes_at_most_1000_expired_keys(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        notes = Notes()
        for number in range(2500):
            spool.keys.put(hashed(number), key(expires=1.0), notes)
        await spool.commit(notes)
        left = []
        for _ in range(3):
            commits = [spool.commit(Notes()) for _ in range(5)]  # they may be one transaction
            for done in commits:
                await done
            with contextlib.closing(sqlite3.connect(path)) as connection:
                left += connection.execute("SELECT count(*) FROM keys").fetchone()
        assert left[0] >= 2500 - 2 * MOST_DELETED
        assert left[-1] == 0


async def test_beyond_max_keys_the_oldest_are_evicted_and_counted(tmp_path: Path) -> None:
    async with Spool(tmp_path / "http.spool") as spool:
        spool.keys.max_keys = 10
        for number in range(15):
            notes = Notes()
            spool.keys.put(hashed(number), key(number), notes)
            await spool.commit(notes)
        found = [await spool.key(hashed(number)) for number in range(15)]
        assert [known is not None for known in found] == [False] * 5 + [True] * 10
        assert spool.keys.evicted == 5


async def test_keys_take_part_of_the_budget_and_no_more_than_their_share(tmp_path: Path) -> None:
    budget = 100 * ROW_BYTES
    async with Spool(tmp_path / "http.spool") as spool:
        backlog = spool.backlog("http", max_bytes=budget, drops_oldest=False)
        twin = spool.backlog("pq-stream", max_bytes=budget, drops_oldest=True)
        await accept(spool, 0, backlog, twin)
        room = backlog.room_bytes
        assert backlog.has_room(room)
        for number in range(30):
            notes = Notes()
            spool.keys.put(hashed(number), key(), notes)
            await spool.commit(notes)
        assert len(spool.keys) == 100 // BUDGET_SHARE
        assert backlog.has_room(room - budget // BUDGET_SHARE)
        assert not backlog.has_room(room - budget // BUDGET_SHARE + 1)
        assert twin.keys.byte_count == 0


async def test_a_damaged_row_of_keys_is_never_believed(tmp_path: Path) -> None:
    path = tmp_path / "http.spool"
    async with Spool(path) as spool:
        await accept(spool, 0, backlog_of(spool))
        notes = Notes()
        for number in range(3):
            spool.keys.put(hashed(number), key(number), notes)
        await spool.commit(notes)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE keys SET progress = 'much' WHERE id = 2")
        with pytest.raises(SpoolCorrupt):
            await spool.key(hashed(1))
    numbers, spool, _ = await waiting(path)
    assert numbers == [0]
    assert spool.repeats_possible == {"http"}
    async with Spool(path) as spool:
        assert [await spool.key(hashed(number)) for number in range(3)] == [key(0), None, key(2)]
