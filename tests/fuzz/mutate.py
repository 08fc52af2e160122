"""Random changes to bytes, the same for the same seed: what damage, attackers and mistakes do to what is sound."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_BYTES = 1 << 16
ODD = (b"\0", b"\xff", b"\n", b'"', b"\\", b"{", b"[", b"<", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 20)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63)

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(draw: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _number(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    size, at = draw.choice((1, 2, 4, 8)), draw.randrange(len(data))
    data[at : at + size] = (draw.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, draw.choice(("big", "little")))


def _insert(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice((draw.randbytes(draw.randrange(1, 16)), draw.choice(ODD) * draw.choice((1, 1, 2, 3000))))


def _cut(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = draw.randrange(len(data))
    del data[at : draw.choice((len(data), at + draw.randrange(1, 16)))]


def _again(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = draw.randrange(len(data))
    data[at:at] = data[at : at + draw.randrange(1, 64)] * draw.choice((1, 2, 50))


def _splice(draw: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = draw.choice(seeds)
    data[draw.randrange(len(data)) :] = other[draw.randrange(len(other) + 1) :]


CHANGES: tuple[Change, ...] = (_flip, _number, _insert, _cut, _again, _splice)


def changed(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the sound inputs, after some changes."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        if data:
            draw.choice(CHANGES)(draw, data, seeds)
    return bytes(data[:MOST_BYTES])
