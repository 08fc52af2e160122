"""Sealing: the records of some blocks, all of them, in order, in batches that are not too large."""

from __future__ import annotations

import base64
import json
import random
from array import array
from itertools import accumulate
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfwd.intake.seal import Sealed, seal
from logfwd.sources.position import Block
from streams.records import batch as recordbatch
from streams.records.batch import Codec

NOW_MS = 1_700_000_000_000
KIB = 1024


def sealed(
    *blocks: bytes | Block,
    invalid: Literal["wrap", "drop"] = "wrap",
    max_record_bytes: int = 512 * KIB,
    max_batch_records: int = 50_000,
    max_batch_bytes: int = 900 * KIB,
    codec: Codec = Codec.ZSTD,
) -> Sealed:
    return seal(
        [Block(block, NOW_MS) if isinstance(block, bytes) else block for block in blocks],
        timestamp_ms=NOW_MS,
        invalid=invalid,
        max_record_bytes=max_record_bytes,
        max_batch_records=max_batch_records,
        max_batch_bytes=max_batch_bytes,
        codec=codec,
    )


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


def test_a_record_above_the_batch_limit_is_a_batch_alone() -> None:
    large = b'{"a":"' + b"x" * 5000 + b'"}'
    result = sealed(b"{}\n" + large + b"\n{}\n", max_batch_bytes=KIB)
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
