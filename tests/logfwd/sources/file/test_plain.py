"""The plain content of compressed files: whole or not at all, from any offset on, in bounded steps."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from logfwd.sources.file.plain import Damaged, Plain, compression_of, plain_pieces
from logfwd.sources.zstdframes import STEP_BYTES
from tests.logfwd.sources.file.follow_harness import numbered

Pack = Callable[[bytes], bytes]


def pack_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKS = {"gzip": gzip.compress, "zstd": pack_zstd}
packed_each_way = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    fds: list[int] = []

    def write(data: bytes) -> int:
        path = tmp_path / str(len(fds))
        path.write_bytes(data)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield write
    for fd in fds:
        os.close(fd)


@packed_each_way
def test_content_is_read_from_any_offset_on(opened: Callable[[bytes], int], pack: Pack) -> None:
    content = numbered(0, 60_000)
    half = len(content) // 2
    plain = Plain(opened(pack(content[:half]) + pack(content[half:])))
    dice = random.Random(1)
    for _ in range(50):
        offset, size = dice.randrange(len(content) + 10), dice.choice([0, 1, 1024, 2 * STEP_BYTES])
        assert plain.pread(size, offset) == content[offset : offset + size]


@packed_each_way
@pytest.mark.parametrize("cut", [4, 5, 9, 100, 2000])
def test_content_that_is_cut_off_or_changed_is_damaged(opened: Callable[[bytes], int], pack: Pack, cut: int) -> None:
    packed = pack(b"".join(b"%d\n" % random.Random(each).getrandbits(64) for each in range(1000)))
    for damaged in (packed[:-cut], packed[:-cut] + bytes((packed[-cut] ^ 1,)) + packed[len(packed) - cut + 1 :]):
        with pytest.raises(Damaged):
            list(plain_pieces(opened(damaged)))


@packed_each_way
def test_what_becomes_a_thousand_times_larger_is_refused_and_no_step_is_large(
    opened: Callable[[bytes], int], pack: Pack
) -> None:
    largest = 0
    with pytest.raises(Damaged, match="more than 1000 times"):
        for piece in plain_pieces(opened(pack(bytes(128 << 20)) if pack is pack_zstd else _gzip_bomb())):
            largest = max(largest, len(piece))
    assert 0 < largest <= STEP_BYTES


def _gzip_bomb() -> bytes:
    """gzip packs zeros to a 1030th at best."""
    return gzip.compress(bytes(128 << 20), 9)


def test_a_window_that_takes_too_much_memory_is_refused(opened: Callable[[bytes], int]) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = os.urandom(1 << 20)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(Damaged, match="not valid zstd"):
        list(plain_pieces(opened(packed.compress(data * 20) + packed.flush())))


def test_what_gzip_itself_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(numbered(0, 1000))
    subprocess.run(["gzip", tmp_path / "a"], check=True)
    with (tmp_path / "a.gz").open("ab") as file:
        file.write(bytes(512))  # padding, as of tapes
    with (tmp_path / "a.gz").open("rb") as file:
        assert b"".join(plain_pieces(file.fileno())) == numbered(0, 1000)


@pytest.mark.parametrize(
    "text", [b"BZh9 is no bzip2\n", b"PK\x03\x04 in a mail\n", b"(\xb5/\xfd and so on\n", b'\x1f\x8b\x08{"a":1}\n', b""]
)
def test_text_that_begins_like_a_compressed_file_is_text(text: bytes) -> None:
    assert compression_of(text) == ""


def test_each_compression_is_known_by_its_first_bytes() -> None:
    import bz2
    import lzma

    data = numbered(0, 3)
    assert [compression_of(pack(data)) for pack in (*PACKS.values(), bz2.compress, lzma.compress)] == [
        "gzip",
        "zstd",
        "bzip2",
        "xz",
    ]
