"""Compressed bodies: every coding back to its bytes, in bounded steps; damage and bombs are refused."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logfwd.sources.http.answers import Refused
from logfwd.sources.http.coding import MOST_MEMBERS, check, decompressed
from logfwd.sources.zstdframes import STEP_BYTES
from streams.config.units import MIB


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def zstd_streamed(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


CODINGS = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstandard.ZstdCompressor().compress),
    ("zstd", zstd_streamed),
]
EACH = pytest.mark.parametrize(("coding", "compress"), CODINGS, ids=["gzip", "zlib", "deflate", "zstd", "zstd stream"])


def whole(data: bytes, coding: str, max_bytes: int = 64 * MIB) -> bytes:
    return b"".join(decompressed(data, coding, max_bytes))


def status(data: bytes, coding: str, max_bytes: int = 64 * MIB) -> int:
    with pytest.raises(Refused) as caught:
        whole(data, coding, max_bytes)
    return caught.value.answer.status


@EACH
@pytest.mark.parametrize("size", [0, 1, 1000, STEP_BYTES, 3 * STEP_BYTES + 7])
def test_bytes_come_back_in_pieces_of_one_step(coding: str, compress, size: int) -> None:  # type: ignore[no-untyped-def]
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    pieces = list(decompressed(compress(data), coding, 64 * MIB))
    assert b"".join(pieces) == data
    assert max(map(len, pieces), default=0) <= STEP_BYTES


@EACH
def test_a_body_that_ends_too_early_is_refused(coding: str, compress) -> None:  # type: ignore[no-untyped-def]
    data = compress(b"a line of a log\n" * 1000)
    for length in range(len(data)):
        assert status(data[:length], coding) == 400, length


@EACH
def test_bytes_after_the_end_are_refused(coding: str, compress) -> None:  # type: ignore[no-untyped-def]
    assert status(compress(b"a line\n") + b"junk", coding) == 400


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes, coding: str) -> None:
    status = 200
    try:
        whole(data, coding, 1000)
    except Refused as refused:
        status = refused.answer.status
    assert status in (200, 400, 413)


def test_gzip_members_and_zstd_frames_are_one_body_and_not_too_many() -> None:
    member = gzip.compress(b"a\n")
    assert whole(member * MOST_MEMBERS, "gzip") == b"a\n" * MOST_MEMBERS
    assert status(member * (MOST_MEMBERS + 1), "gzip") == 400
    assert whole(zstandard.compress(b"a\n") * 1000, "zstd") == b"a\n" * 1000


@EACH
def test_a_bomb_is_refused_before_it_takes_memory(coding: str, compress) -> None:  # type: ignore[no-untyped-def]
    bomb = compress(bytes(256 * MIB))
    tracemalloc.start()
    try:
        assert status(bomb, coding, 2 * MIB) == 413
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_body_that_grows_a_thousandfold_is_refused_even_within_the_limit() -> None:
    bomb = zstandard.compress(bytes(32 * MIB))
    assert len(bomb) < 32 * MIB // 1000
    assert status(bomb, "zstd", 64 * MIB) == 413
    assert whole(zstandard.compress(bytes(MIB)), "zstd") == bytes(MIB), "a small one may"


def test_a_window_that_takes_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert status(compressor.compress(random.Random(1).randbytes(MIB)) + compressor.flush(), "zstd") == 400


@pytest.mark.parametrize(("name", "expected"), [("", ""), ("identity", ""), (" GZIP ", "gzip"), ("x-gzip", "gzip")])
def test_names_of_codings(name: str, expected: str) -> None:
    assert check(name) == expected


@pytest.mark.parametrize("name", ["br", "gzip, gzip", "zstd,gzip"])
def test_other_codings_are_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check(name)
    assert caught.value.answer.status == 415
