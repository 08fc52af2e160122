"""The batcher: nothing lost, nothing reordered, limits kept, positions right."""

from __future__ import annotations

import itertools
from array import array

from hypothesis import given
from hypothesis import strategies as st

from logfwd.definition import BatchLimits
from logfwd.intake.batcher import (
    BURST_PAUSE_SECONDS,
    CATCH_UP_SECONDS,
    FULL_SHARE,
    PORTION_BYTES,
    Batcher,
    Portion,
)
from logfwd.sources.position import FILE, TAIL_BYTES, Block, Mark, tail_hash

KEYS = ("", "a", "b")


def limits(size: int = 1000, linger: float = 0.2) -> BatchLimits:
    return BatchLimits(max_batch_bytes=size, linger_seconds=linger)


def block(data: bytes, *, key: str = "a", start: int = 0, unfinished: bool = False, read_at_ms: int = 1) -> Block:
    return Block(
        data=data, read_at_ms=read_at_ms, key=key, start=start, end=start + len(data) - unfinished, detail=b"d"
    )


def marks(draft: Portion) -> dict[str, Mark]:
    """The marks in a draft's positions."""
    found = {}
    for key, position in draft.positions().items():
        assert position.source == FILE
        assert position.expires is None
        mark = Mark.decode(position.value)
        assert mark is not None
        found[key] = mark
    return found


def ends_of(records: list[bytes]) -> array[int]:
    return array("I", itertools.accumulate(map(len, records)))


lines = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ") + b"\n"), max_size=30)
inputs = st.lists(st.tuples(st.sampled_from(KEYS), lines.map(b"".join), st.booleans()), max_size=8)


def run(given_limits: BatchLimits, items: list[tuple[str, bytes, bool]]) -> tuple[list[Block], list[Portion]]:
    """Blocks that follow each other within each key, and every draft that came of them."""
    batcher, offsets = Batcher(given_limits), dict.fromkeys(KEYS, 0)
    blocks: list[Block] = []
    drafts: list[Portion] = []
    for key, data, unfinished in items:
        blocks.append(block(data, key=key, start=offsets[key], unfinished=unfinished and bool(data)))
        offsets[key] = blocks[-1].end
        drafts += batcher.add(blocks[-1], 0.0)
    if (last := batcher.flush(0.0)) is not None:
        drafts.append(last)
    return blocks, drafts


@given(inputs, st.integers(1, 200))
def test_drafts_joined_are_the_blocks_joined_and_within_limits(items: list[tuple[str, bytes, bool]], size: int) -> None:
    blocks, drafts = run(limits(size), items)
    assert b"".join(part.data for draft in drafts for part in draft.blocks) == b"".join(each.data for each in blocks)
    for draft in drafts:
        data = b"".join(part.data for part in draft.blocks)
        assert draft.byte_count == len(data)
        assert draft.byte_count <= size or data.count(b"\n") == 1
        assert all(part.data.endswith(b"\n") for part in draft.blocks if part.data)


@given(inputs, st.integers(1, 200))
def test_parts_of_a_key_follow_each_other_and_positions_are_at_their_end(
    items: list[tuple[str, bytes, bool]], size: int
) -> None:
    blocks, drafts = run(limits(size), items)
    contents = {key: b"".join(b.data[: b.end - b.start] for b in blocks if b.key == key) for key in KEYS}
    reached = dict.fromkeys(KEYS, 0)
    for draft in drafts:
        for part in draft.blocks:
            assert part.start == reached[part.key]
            assert part.data[: part.end - part.start] == contents[part.key][part.start : part.end]
            reached[part.key] = part.end
        positions = marks(draft)
        assert set(positions) == {part.key for part in draft.blocks} - {""}
        for key, mark in positions.items():
            assert mark.offset == reached[key]
            tail = contents[key][mark.offset - mark.tail_bytes : mark.offset]
            assert mark.tail_hash == (tail_hash(tail) if tail else b"")
            assert mark.detail == b"d"
    assert reached == {key: len(content) for key, content in contents.items()}


def records_of(blocks: list[Block]) -> list[bytes]:
    """What the blocks' ends say."""
    return [each.data[start:end] for each in blocks for start, end in itertools.pairwise((0, *(each.ends or ())))]


@given(st.lists(st.lists(st.binary(max_size=40), max_size=10), max_size=8), st.integers(1, 200))
def test_records_with_known_ends_are_cut_there_and_nowhere_else(items: list[list[bytes]], size: int) -> None:
    batcher, offset, drafts = Batcher(limits(size)), 0, list[Portion]()
    for records in items:
        data = b"".join(records)
        drafts += batcher.add(Block(data, 1, "a", offset, offset + len(data), b"d", ends_of(records)), 0.0)
        offset += len(data)
    if (last := batcher.flush(0.0)) is not None:
        drafts.append(last)
    assert records_of([part for draft in drafts for part in draft.blocks]) == [each for item in items for each in item]
    reached = 0
    for draft in drafts:
        assert draft.byte_count <= size or len([each for each in records_of(draft.blocks) if each]) == 1
        assert all(part.start + len(part.data) == part.end for part in draft.blocks)
        reached += draft.byte_count
        assert marks(draft)["a"].offset == reached


@given(inputs, st.integers(1, 200))
def test_a_full_draft_is_nearly_full_or_could_not_have_taken_the_next_line(
    items: list[tuple[str, bytes, bool]], size: int
) -> None:
    _, drafts = run(limits(size), items)
    for draft, following in itertools.pairwise(drafts):
        if following.byte_count >= size - size // FULL_SHARE and len(following.blocks) == 1:
            continue  # a full block in a series of them is not cut
        line = next((part.data for part in following.blocks if part.data), b"").split(b"\n")[0] + b"\n"
        nearly_full = draft.byte_count >= size - size // FULL_SHARE
        assert nearly_full or draft.byte_count + len(line) > size


def test_a_block_within_the_limits_is_passed_on_uncopied() -> None:
    batcher, given_block = Batcher(limits()), block(b"one\ntwo\n")
    assert batcher.add(given_block, 0.0) == []
    draft = batcher.flush(0.0)
    assert draft is not None
    assert draft.blocks[0] is given_block


def test_of_a_series_of_full_blocks_only_the_first_is_cut() -> None:
    batcher, lines = Batcher(limits(100)), b"0123456789abcdefgh\n" * 5
    first, *others = [block(lines, start=at) for at in range(19, 400, 95)]
    assert batcher.add(block(lines[:19]), 0.0) == []
    assert [each.byte_count for each in batcher.add(first, 0.0)] == [95]
    drafts = [draft for each in others for draft in batcher.add(each, 0.0)]
    assert [each.byte_count for each in drafts] == [19, *[95] * len(others)]
    assert all(draft.blocks[0] is each for draft, each in zip(drafts[1:], others, strict=True))


def test_full_blocks_that_alternate_with_small_ones_fill_their_batches() -> None:
    batcher, line = Batcher(limits(100)), b"012345678\n"
    drafts: list[Portion] = []
    for start in range(0, 1300, 130):
        drafts += batcher.add(block(line * 3, start=start), 0.0)
        drafts += batcher.add(block(line * 10, start=start + 30), 0.0)
    assert {each.byte_count for each in drafts} == {100}


def busy(limits: BatchLimits, now: float) -> Batcher:
    """A batcher that has just sealed a draft."""
    batcher = Batcher(limits)
    batcher.add(block(b"x\n"), now)
    assert batcher.flush(now) is not None
    return batcher


def test_a_draft_that_begins_in_a_quiet_moment_is_due_at_once() -> None:
    batcher = Batcher(limits(linger=0.5))
    assert batcher.deadline() is None
    batcher.add(block(b"one\n"), 10.0)
    assert batcher.deadline() == 10.0
    assert batcher.due(10.0) is not None
    assert (batcher.deadline(), batcher.due(99.0), batcher.flush(99.0)) == (None, None, None)


def test_what_follows_gathers_until_a_linger_after_the_last_seal() -> None:
    batcher = busy(limits(linger=0.5), 10.0)
    batcher.add(block(b"one\n"), 10.1)
    batcher.add(block(b"two\n", start=4), 10.4)
    assert batcher.deadline() == 10.5
    assert batcher.due(10.49) is None
    draft = batcher.due(10.6)
    assert draft is not None
    assert len(draft.blocks) == 2
    batcher.add(block(b"six\n", start=8), 10.7)
    assert batcher.deadline() == 10.6 + 0.5


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=80), st.sampled_from([0.001, 0.02, 0.1, 0.2, 1.0]))
def test_no_record_waits_longer_than_linger_and_few_drafts_are_sealed_early(gaps: list[float], linger: float) -> None:
    batcher, now, early = Batcher(limits(linger=linger)), 0.0, list[float]()
    for came in itertools.accumulate(gaps):
        while (deadline := batcher.deadline()) is not None and deadline < came:
            now = deadline
            assert batcher.due(now) is not None
        is_first = deadline is None
        batcher.add(block(b"x\n"), came)
        deadline = batcher.deadline()
        assert deadline is not None
        if is_first:
            assert came <= deadline <= came + linger
            early += [deadline] if deadline < came + linger else []
    assert all(later - sooner >= max(linger, 0.1) - 1e-9 for sooner, later in itertools.pairwise(early))


def test_the_rest_of_a_cut_block_lingers_from_when_its_forerunner_was_sealed() -> None:
    batcher = busy(limits(size=10, linger=0.5), 9.9)
    batcher.add(block(b"first\n", read_at_ms=5), 10.0)
    (draft,) = batcher.add(block(b"two\nsix\n", start=6, read_at_ms=7), 10.3)
    assert [part.data for part in draft.blocks] == [b"first\n", b"two\n"]
    assert draft.oldest_read_at_ms == 5
    assert batcher.deadline() == 10.8
    rest = batcher.flush(10.3)
    assert rest is not None
    assert rest.oldest_read_at_ms == 7


def test_the_end_of_a_burst_does_not_wait_for_its_linger() -> None:
    batcher = busy(limits(size=20, linger=0.5), 10.0)
    batcher.add(block(b"one\n"), 10.0)
    batcher.add(block(b"two\nsix\n", start=4), 10.1)
    assert batcher.deadline() == 10.1 + BURST_PAUSE_SECONDS
    batcher.add(block(b"ten\n", start=12), 10.11)
    assert batcher.deadline() == 10.11 + BURST_PAUSE_SECONDS
    draft = batcher.due(10.11 + BURST_PAUSE_SECONDS)
    assert draft is not None
    assert draft.byte_count == 16


def test_a_burst_waits_no_longer_than_its_linger() -> None:
    batcher = busy(limits(size=20, linger=0.5), 10.0)
    batcher.add(block(b"one\ntwo\n"), 10.0)
    batcher.add(block(b"six\n", start=8), 10.49)
    assert batcher.deadline() == 10.5


def test_an_exactly_full_draft_does_not_wait() -> None:
    batcher = Batcher(limits(size=8))
    (draft,) = batcher.add(block(b"one\ntwo\n"), 0.0)
    assert draft.byte_count == 8
    assert batcher.deadline() is None


def test_a_line_over_the_limit_gets_a_draft_of_its_own() -> None:
    batcher = Batcher(limits(size=8))
    drafts = batcher.add(block(b"a\n" + b"x" * 20 + b"\nb\n"), 0.0)
    assert [draft.byte_count for draft in drafts] == [2, 21]
    rest = batcher.flush(0.0)
    assert rest is not None
    assert rest.blocks[0].data == b"b\n"


def test_an_added_newline_is_not_part_of_the_position_or_its_tail() -> None:
    batcher = Batcher(limits())
    batcher.add(block(b"half\n", start=100, unfinished=True), 0.0)
    draft = batcher.flush(0.0)
    assert draft is not None
    mark = marks(draft)["a"]
    assert (mark.offset, mark.tail_bytes, mark.tail_hash) == (104, 4, tail_hash(b"half"))


def test_the_tail_is_at_most_its_limit() -> None:
    batcher, data = Batcher(limits(size=1 << 20)), b"0123456\n" * 999
    batcher.add(block(data), 0.0)
    draft = batcher.flush(0.0)
    assert draft is not None
    mark = marks(draft)["a"]
    assert (mark.tail_bytes, mark.tail_hash) == (TAIL_BYTES, tail_hash(data[-TAIL_BYTES:]))


def test_a_block_that_carries_only_a_position_reaches_the_positions() -> None:
    batcher = Batcher(limits())
    batcher.add(Block(data=b"", read_at_ms=1, key="a", start=50, end=50, detail=b"d"), 0.0)
    draft = batcher.flush(0.0)
    assert draft is not None
    assert (draft.byte_count, marks(draft)["a"].offset) == (0, 50)


# -- large drafts --------------------------------------------------------------------------------------------------

LARGE = BatchLimits(linger_seconds=60)
FULL_BLOCK = (b"x" * 99 + b"\n") * 9216  # as large as the source reads them


def compresses(batcher: Batcher, times: int) -> Batcher:
    """A batcher whose drafts become smaller by this factor."""
    batcher.sealed(1_000_000 * times, 1_000_000)
    batcher.add(block(b"x\n"), 0.0)
    assert batcher.flush(0.0) is not None
    return batcher


def drafts_of(portions: list[Portion]) -> list[int]:
    """The bytes of each draft that has ended."""
    sizes = [0]
    for portion in portions:
        sizes[-1] += portion.byte_count
        if portion.ends_draft:
            sizes.append(0)
    return sizes[:-1]


def test_a_draft_leaves_in_portions_and_grows_as_far_as_its_batch_will_be_well_filled() -> None:
    batcher = compresses(Batcher(LARGE), 5)
    portions = [portion for _ in range(20) for portion in batcher.add(block(FULL_BLOCK), 1.0)]
    assert {portion.ends_draft for portion in portions} == {True, False}
    assert all(portion.byte_count < len(FULL_BLOCK) + PORTION_BYTES for portion in portions), (
        "no block is kept for a later one"
    )
    target = 5 * 900 * 1024 * 3 // 4
    assert all(target * 15 / 16 <= size <= target * 9 / 8 for size in drafts_of(portions))
    assert len(drafts_of(portions)) == 5
    assert {len(each.data) for portion in portions for each in portion.blocks} == {len(FULL_BLOCK)}, "none is cut"


def test_a_draft_has_no_more_than_consumers_expect_and_at_least_a_batch_without_compression() -> None:
    batcher = compresses(Batcher(LARGE), 1000)
    portions = [portion for _ in range(20) for portion in batcher.add(block(FULL_BLOCK), 1.0)]
    assert max(drafts_of(portions)) <= 8 << 20
    batcher = compresses(Batcher(LARGE), 0)
    assert drafts_of(batcher.add(block(FULL_BLOCK), 1.0)) == [len(FULL_BLOCK)]


def test_what_a_batch_needs_changes_no_draft_that_has_begun() -> None:
    batcher = compresses(Batcher(LARGE), 5)
    batcher.add(block(FULL_BLOCK), 1.0)
    batcher.sealed(1000, 1000)
    assert [portion.ends_draft for portion in batcher.add(block(FULL_BLOCK), 1.0)] == [False]


def test_small_blocks_are_gathered_to_a_portion() -> None:
    batcher = compresses(Batcher(LARGE), 5)
    small = FULL_BLOCK[: PORTION_BYTES // 3]
    assert [len(batcher.add(block(small), 1.0)) for _ in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]


def test_a_large_draft_is_for_a_source_that_is_behind() -> None:
    batcher = compresses(Batcher(LARGE), 5)
    batcher.add(block(FULL_BLOCK), 1.0)
    assert batcher.deadline() == 1.0 + CATCH_UP_SECONDS
    end = batcher.due(1.0 + CATCH_UP_SECONDS)
    assert end is not None
    assert (end.blocks, end.ends_draft, end.positions()) == ([], True, {})
    assert batcher.deadline() is None
