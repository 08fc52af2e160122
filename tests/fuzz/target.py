"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """`run` takes any bytes, and raises nothing but the errors that it promises; `seeds` are sound inputs."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def in_pieces(data: bytes) -> list[bytes]:
    """Cut where the bytes themselves say, so that an input says everything."""
    size = data[0] % 17 + 1 if data else 1
    return [data[at : at + size] for at in range(0, len(data), size)]
