"""Records in what arrives: where pieces end, and who sends more of them than data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.security.arriving import FREE_BYTES, PIECE_RECORDS, Records, Use


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


@given(st.lists(st.integers(0, 300), max_size=200), st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_however_records_are_cut_into_chunks_no_piece_has_more_than_allowed(sizes: list[int], cuts: list[int]) -> None:
    data, records = b"".join(map(record, sizes)), Records()
    ends = {sum(size + 5 for size in sizes[:count]) for count in range(len(sizes) + 1)}
    at, turn, most = 0, 0, PIECE_RECORDS + 1  # a piece may begin within a record
    while at < len(data):
        chunk = data[at : at + cuts[turn % len(cuts)]]
        size = records.piece(chunk)
        assert sum(at < end <= at + size for end in ends) <= most
        assert size == len(chunk) or at + size in ends
        assert size > 0
        at, turn = at + size, turn + 1


def test_large_records_are_taken_whole() -> None:
    chunk = b"".join(record(16_401) for _ in range(16))
    assert Records().piece(chunk) == len(chunk)


def test_data_is_no_flood_and_records_without_any_are() -> None:
    use = Use(0.0)
    for _ in range(1000):
        use.arrived, use.useful = use.arrived + 16_406, use.useful + 16_384
        assert not use.is_flood(0.0)
    use = Use(0.0)
    for _ in range(1000):  # short batches
        use.arrived, use.useful = use.arrived + 97, use.useful + 75
        assert not use.is_flood(0.0)
    use = Use(0.0)
    use.arrived = FREE_BYTES
    assert not use.is_flood(0.0)
    use.arrived += 27
    assert use.is_flood(0.0)
    assert not use.is_flood(1.0), "a little of it all the time is none"


def test_a_handshake_goes_on_before_others_begin_for_a_few_steps_alone() -> None:
    records = Records()
    assert [records.goes_on() for _ in range(6)] == [False, True, True, True, False, False]
