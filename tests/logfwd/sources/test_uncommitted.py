"""Blocks that cannot be read again: the next pipeline gets exactly what is not durable."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from logfwd.intake.batcher import Portion
from logfwd.sources.position import STDIN, Block, Mark, Position
from logfwd.sources.uncommitted import Uncommitted


def position(kept: Uncommitted, offset: int) -> dict[str, Position]:
    return {"k": Position(STDIN, Mark(offset, detail=kept.session).encode())}


def filled(records: list[bytes], *, ends: bool) -> Uncommitted:
    """Blocks of two records each."""
    kept, offset = Uncommitted("k", STDIN), 0
    for index in range(0, len(records), 2):
        parts = records[index : index + 2]
        data = b"".join(parts)
        places = array("Q", [len(b"".join(parts[:count])) for count in range(1, len(parts) + 1)]) if ends else None
        end = offset + len(data)
        kept.append(Block(data, 0, "k", offset, end, kept.session, places, source=STDIN))
        offset = end
    return kept


def records_of(blocks: list[Block]) -> list[bytes]:
    records = []
    for block in blocks:
        ends = block.ends or [index + 1 for index, byte in enumerate(block.data) if byte == ord("\n")]
        starts = [0, *ends]
        records += [block.data[start:end] for start, end in zip(starts, ends, strict=False)]
    return records


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 9), st.booleans())
def test_a_new_pipeline_gets_the_records_after_the_durable_ones(sizes: list[int], durable: int, ends: bool) -> None:
    records = [b"x" * size + b"\n" for size in sizes]
    kept, durable = filled(records, ends=ends), min(durable, len(records))
    assert records_of(list(iter(kept.next, None))) == records
    offset = len(b"".join(records[:durable]))
    kept.restart(position(kept, offset))
    assert kept.byte_count == len(b"".join(records)) - offset
    rest = kept.rest()
    assert records_of(rest) == records[durable:]
    assert kept.rest() == []
    assert kept.next() is None
    if rest:
        assert rest[0].start == offset
        kept.committed(Portion(rest).positions())
    assert kept.byte_count == 0


def test_positions_of_another_process_or_source_mean_nothing() -> None:
    kept, other = filled([b"a\n"], ends=False), Uncommitted("k", STDIN)
    kept.committed(position(other, 100))
    kept.committed({"k": Position("file", Mark(100, detail=kept.session).encode())})
    kept.committed({"k": Position(STDIN, b"?")})
    kept.committed({})
    assert kept.byte_count == 2
