"""Sealing: the records of some blocks, all of them, in order, in batches that are not too large."""

from __future__ import annotations

import base64
import json
import random
import threading
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logfwd.intake import seal as seal_module
from logfwd.intake.batches import Framing, Packing, Rules
from logfwd.intake.seal import Sealed, Sealer, seal
from logfwd.sources.position import Block
from streams.records import batch as recordbatch
from streams.records.batch import Codec, compressed
from streams.records.body import NO_EXTRAS, BytesLike

NOW_MS = 1_700_000_000_000
KIB = 1024


RULES = Rules("wrap", 512 * KIB, 50_000, 900 * KIB, 8 * KIB * KIB, Codec.ZSTD)


def blocks_of(*blocks: bytes | Block) -> list[Block]:
    return [Block(block, NOW_MS) if isinstance(block, bytes) else block for block in blocks]


def sealed(*blocks: bytes | Block, **rules: Any) -> Sealed:
    return seal(blocks_of(*blocks), RULES._replace(**rules), timestamp_ms=NOW_MS)


def values(result: Sealed) -> list[bytes | None]:
    for batch in result.batches:
        header = recordbatch.check(batch.payload)
        assert (header.record_count, header.producer_id, header.max_timestamp) == (batch.record_count, -1, NOW_MS)
    return [r.value for batch in result.batches for r in recordbatch.iterate(batch.payload, max_bytes=16 * KIB * KIB)]


def requests(total_bytes: int) -> bytes:
    """Lines like an HTTP server's log, about 577 bytes each, the same on every run."""
    rng = random.Random(577)
    lines = []
    while total_bytes > 0:
        row = {
            "timestamp": f"2015-05-17T10:{rng.randrange(60):02}:{rng.randrange(60):02}+00:00",
            "client_ip": ".".join(str(rng.randrange(256)) for _ in range(4)),
            "method": rng.choice(["GET", "HEAD", "POST"]),
            "path": f"/presentations/{rng.randrange(10**6)}/images/{rng.choice(['a', 'b', 'c']) * 20}.png",
            "status": rng.choice([200, 200, 200, 304, 404]),
            "bytes": rng.randrange(10**6),
            "request_id": f"{rng.getrandbits(128):032x}",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0",
            "detail": rng.choice(["hit", "miss", "expired"]) * 40,
        }
        lines.append(json.dumps(row).encode() + b"\n")
        total_bytes -= len(lines[-1])
    return b"".join(lines[:-1])


def test_a_full_block_becomes_one_batch_of_its_lines() -> None:
    block = requests(900 * KIB)
    result = sealed(block)
    assert [batch.record_count for batch in result.batches] == [block.count(b"\n")]
    assert values(result) == block.splitlines()
    assert len(result.batches[0].payload) < len(block) / 3
    assert (result.invalid, result.blank) == (0, 0)


def test_a_full_block_becomes_one_batch_also_without_a_codec_and_fits_a_topic_s_default() -> None:
    (batch,) = sealed(requests(900 * KIB), codec=Codec.NONE).batches
    assert batch.uncompressed_bytes == len(batch.payload) <= 1_048_588


def test_several_blocks_become_one_batch_in_their_order() -> None:
    result = sealed(b'{"a":1}\n{"a":2}\n', b"\n", b'{"b":1}\noops\n')
    assert len(result.batches) == 1
    assert values(result) == [b'{"a":1}', b'{"a":2}', b'{"b":1}', b'{"message":"oops","invalid":true}']
    assert (result.invalid, result.blank) == (1, 1)


def known(*records: bytes) -> Block:
    """A block that says where its records end."""
    return Block(b"".join(records), NOW_MS, ends=array("I", accumulate(map(len, records))))


def test_where_the_ends_are_known_newlines_mean_nothing() -> None:
    spread, text = b'{"a":\n1}', b"two\nlines"
    result = sealed(known(spread, b'{"b":2}', text, b"", b" \n"), b'{"c":3}\n')
    assert values(result) == [spread, b'{"b":2}', b'{"message":"two\\nlines","invalid":true}', b'{"c":3}']
    assert (result.invalid, result.blank) == (1, 2)


def test_a_character_that_reaches_over_a_known_end_makes_both_records_invalid() -> None:
    first, second = '{"a":"é"}'.encode()[:7], '{"a":"é"}'.encode()[7:]
    assert values(sealed(known(first, second))) == [
        b'{"message_base64":"%s","invalid":true}' % base64.b64encode(each) for each in (first, second)
    ]


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")), max_size=10))
def test_known_ends_and_newlines_give_the_same_records(lines: list[bytes]) -> None:
    by_newline, by_end = sealed(b"".join(line + b"\n" for line in lines)), sealed(known(*lines))
    assert (by_newline.invalid, by_newline.blank) == (by_end.invalid, by_end.blank)
    assert values(by_newline) == values(by_end)


@pytest.mark.parametrize("block", [b"", b"\n \r\n", b"oops\n[1]\n"])
def test_without_records_there_is_no_batch(block: bytes) -> None:
    assert sealed(block, invalid="drop").batches == []
    assert sealed(block, block, invalid="drop").batches == []


def test_no_blocks_are_no_batch() -> None:
    assert sealed() == Sealed([], 0, 0, [])


def test_a_block_that_wrapping_made_larger_becomes_several_batches() -> None:
    block = b"\x01\n" * 10_000
    result = sealed(block, max_batch_bytes=100 * KIB, codec=Codec.NONE)
    assert len(result.batches) > 1
    assert all(len(batch.payload) <= 100 * KIB * 9 / 8 for batch in result.batches)
    assert values(result) == [b'{"message":"\\u0001","invalid":true}'] * 10_000
    assert result.invalid == 10_000


def test_short_records_are_cut_so_that_no_batch_outgrows_its_limit() -> None:
    block = b"{}\n" * 50_000
    result = sealed(block, max_batch_bytes=len(block), codec=Codec.NONE)
    assert sum(batch.record_count for batch in result.batches) == 50_000
    assert all(len(batch.payload) <= len(block) * 9 / 8 for batch in result.batches)


@pytest.mark.parametrize("codec", list(Codec))
def test_a_record_above_the_batch_limit_is_a_batch_alone(codec: Codec) -> None:
    large = b'{"a":"' + random.Random(5).randbytes(2500).hex().encode() + b'"}'
    result = sealed(b"{}\n" + large + b"\n{}\n", max_batch_bytes=KIB, codec=codec)
    assert [batch.record_count for batch in result.batches] == [1, 1, 1]
    assert values(result) == [b"{}", large, b"{}"]


@given(
    st.lists(st.binary(max_size=300).map(lambda data: data + b"\n"), max_size=5),
    st.sampled_from(list(Codec)),
    st.integers(KIB, 4 * KIB),
)
def test_no_bytes_raise_and_each_line_is_a_record_or_counted(blocks: list[bytes], codec: Codec, limit: int) -> None:
    result = sealed(*blocks, max_batch_bytes=limit, codec=codec)
    lines = sum(block.count(b"\n") for block in blocks)
    assert len(values(result)) == lines - result.blank  # no line is long enough to need parts
    assert sum(batch.record_count for batch in result.batches) == lines - result.blank
    dropping = sealed(*blocks, invalid="drop", max_batch_bytes=limit, codec=codec)
    assert len(values(dropping)) == lines - dropping.blank - dropping.invalid


def test_no_batch_has_more_records_than_the_stream_allows() -> None:
    block = b"".join(b'{"n":%d}\n' % n for n in range(10))
    result = sealed(block, max_batch_records=4)
    assert [batch.record_count for batch in result.batches] == [4, 4, 2]
    assert values(result) == [b'{"n":%d}' % n for n in range(10)]


# -- by portions ---------------------------------------------------------------------------------------------------


def by_portions(portions: list[list[Block]], **rules: Any) -> Sealed:
    sealer, result = Sealer(RULES._replace(**rules), NOW_MS), Sealed([], 0, 0, [])
    for number, portion in enumerate(portions, 1):
        result = sealer.portion(portion, is_last=number == len(portions))()
    return result


@given(
    st.lists(st.lists(st.binary(max_size=300).map(lambda data: data + b"\n"), max_size=3), min_size=1, max_size=5),
    st.sampled_from(list(Codec)),
    st.integers(KIB, 4 * KIB),
)
def test_a_draft_is_the_same_records_however_its_portions_are_cut(
    portions: list[list[bytes]], codec: Codec, limit: int
) -> None:
    result = by_portions([blocks_of(*portion) for portion in portions], max_batch_bytes=limit, codec=codec)
    whole = sealed(*(block for portion in portions for block in portion), max_batch_bytes=limit, codec=codec)
    assert values(result) == values(whole)
    assert result[1:] == whole[1:]
    assert all(len(batch.payload) <= limit * 9 / 8 or batch.record_count == 1 for batch in result.batches)


def test_a_batch_is_full_by_what_it_takes_after_compression() -> None:
    lines, limit = requests(2000 * KIB).splitlines(keepends=True), 100 * KIB
    portions = [blocks_of(b"".join(lines[start : start + 150])) for start in range(0, len(lines), 150)]
    result = by_portions(portions, max_batch_bytes=limit)
    assert values(result) == [line[:-1] for line in lines]
    *full, last = (len(batch.payload) for batch in result.batches)
    assert 1 <= len(full) <= len(portions) / 3
    assert all(limit * 7 / 8 <= size <= limit * 9 / 8 for size in full)
    assert last <= limit * 9 / 8


def test_what_does_not_compress_fills_a_batch_by_its_size() -> None:
    noise = b"".join(b'{"x":"%b"}\n' % base64.b85encode(random.Random(n).randbytes(400)) for n in range(400))
    noise = noise.replace(b"\\", b"/")
    result = by_portions([blocks_of(noise)] * 3, max_batch_bytes=50 * KIB)
    assert values(result) == noise.splitlines() * 3
    assert all(len(batch.payload) <= 50 * KIB * 9 / 8 for batch in result.batches)
    assert len(result.batches) >= 3 * len(noise) * 0.7 / (50 * KIB * 9 / 8)


def test_a_batch_holds_no_more_before_compression_than_its_consumers_expect() -> None:
    block = b'{"a":1}\n' * 3000
    result = by_portions([blocks_of(block)] * 8, max_uncompressed_bytes=100 * KIB)
    assert values(result) == [b'{"a":1}'] * 24_000
    assert all(batch.uncompressed_bytes <= 100 * KIB * 9 / 8 for batch in result.batches)
    assert len(result.batches) == 4


def test_a_small_draft_is_made_at_once_and_left_uncompressed_if_that_is_smaller() -> None:
    (batch,) = sealed(b'{"a":1}\n').batches
    assert recordbatch.parse_header(batch.payload).codec is Codec.NONE
    (batch,) = sealed(b'{"a":1}\n' * 100).batches
    assert zstandard.frame_content_size(batch.payload[recordbatch.HEADER_BYTES :]) > 0


# -- several portions at once ----------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.binary(max_size=300).map(lambda data: data + b"\n"), max_size=3), min_size=1, max_size=6),
    st.sampled_from(list(Codec)),
    st.integers(KIB, 4 * KIB),
    st.integers(1, 20),
)
def test_portions_that_are_sealed_at_once_keep_their_order_and_all_limits(
    portions: list[list[bytes]], codec: Codec, limit: int, max_records: int
) -> None:
    rules = RULES._replace(max_batch_bytes=limit, codec=codec, max_batch_records=max_records)
    sealer = Sealer(rules, NOW_MS)
    works = [
        sealer.portion(blocks_of(*portion), is_last=number == len(portions))
        for number, portion in enumerate(portions, 1)
    ]
    with ThreadPoolExecutor(len(works)) as threads:
        *_, result = [work.result(60) for work in [threads.submit(work) for work in reversed(works)][::-1]]
    whole = seal(blocks_of(*(block for portion in portions for block in portion)), rules, timestamp_ms=NOW_MS)
    assert values(result) == values(whole)
    assert result[1:] == whole[1:]
    assert all(len(batch.payload) <= limit * 9 / 8 or batch.record_count == 1 for batch in result.batches)
    assert all(batch.record_count <= max_records for batch in result.batches)


def test_a_portion_is_framed_while_the_one_before_it_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    second_is_framed = threading.Event()

    def slowly(records: memoryview, codec: Codec) -> BytesLike:
        if b"first" in records.tobytes():
            assert second_is_framed.wait(60)
        else:
            second_is_framed.set()
        return compressed(records, codec)

    monkeypatch.setattr(seal_module, "compressed", slowly)
    sealer = Sealer(RULES, NOW_MS)
    first, second = (
        sealer.portion(blocks_of(b'{"n":"%b"}\n' % name), is_last=name == b"second") for name in (b"first", b"second")
    )
    with ThreadPoolExecutor(1) as threads:
        threads.submit(first)
        assert values(second()) == [b'{"n":"first"}', b'{"n":"second"}']


def test_after_a_portion_that_could_not_be_sealed_no_other_one_is() -> None:
    def damaged() -> Iterator[Block]:
        raise OSError("no such block")
        yield

    sealer = Sealer(RULES, NOW_MS)
    first, second = sealer.portion(damaged(), is_last=False), sealer.portion(blocks_of(b"{}\n"), is_last=True)
    with pytest.raises(OSError, match="no such block"):
        first()
    with pytest.raises(RuntimeError, match="before this one"):
        second()


# -- framed for a batch that is full before ----------------------------------------------------------------------------


def noise(count: int, seed: int) -> list[BytesLike]:
    """Values of 400 bytes that hardly compress."""
    rng = random.Random(seed)
    return [b'{"x":"%b"}' % base64.b64encode(rng.randbytes(300)) for _ in range(count)]


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_what_was_framed_for_a_batch_that_is_full_before_is_moved_to_the_next(ahead: int) -> None:
    limit = 10 * KIB
    rules = RULES._replace(max_batch_bytes=limit)
    framing, packing = Framing(rules), Packing(rules, NOW_MS)
    portions = [noise(12, seed) for seed in range(9)]
    framed = []
    for number, portion in enumerate(map(list, portions)):
        pieces = framing.frame(portion, NO_EXTRAS, full=packing.full)
        framed += [(each, compressed(each.records, Codec.ZSTD)) for each in pieces]
        assert portion == [], "values are freed as soon as they are framed"
        if number >= ahead:
            packing.add(*framed.pop(0))
    for each in framed:
        packing.add(*each)
    packing.close()
    assert values(Sealed(packing.batches, 0, 0, [])) == [value for portion in portions for value in portion]
    assert all(len(batch.payload) <= limit * 9 / 8 for batch in packing.batches)
    assert len(packing.batches) <= 6


def test_framing_begins_with_another_batch_once_it_hears_that_one_is_full() -> None:
    framing = Framing(RULES)
    found = [framing.frame([b"{}"], NO_EXTRAS, full=full)[0] for full in (-1, -1, 0, 0, 1)]
    assert [(each.batch, each.first) for each in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_piece_that_is_too_large_for_any_batch_is_halved_until_it_fits() -> None:
    portion, limit = noise(40, 7), 3 * KIB
    rules = RULES._replace(max_batch_bytes=limit)
    framing, packing = Framing(rules), Packing(rules, NOW_MS)
    (piece,) = framing.frame(list(portion), NO_EXTRAS, full=packing.full)
    packing.add(piece, compressed(piece.records, Codec.ZSTD))
    packing.close()
    assert values(Sealed(packing.batches, 0, 0, [])) == portion
    assert all(len(batch.payload) <= limit * 9 / 8 for batch in packing.batches)
    assert packing.full == piece.batch
