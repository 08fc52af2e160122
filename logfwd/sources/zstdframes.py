"""The plain content of zstd frames, in steps of bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from streams.config.units import MIB

STEP_BYTES = MIB
"""The most plain bytes that are decompressed at a time."""
MOST_WINDOW_BYTES = 8 * MIB
"""What RFC 8878 §3.1.1.1.2 asks every zstd decoder to support: up to `zstd -19`."""


def plain_pieces(followed_by: Callable[[bytes], Any]) -> Iterator[bytes]:
    """The plain bytes of one frame after the other, in pieces of at most STEP_BYTES. Raises EOFError, ZstdError.

    The library does not report a frame that ends too early, so a last frame of our own must come out whole:
    `followed_by` gives the compressed content (bytes, or something with `read`) with these bytes behind it.
    """
    sentinel = os.urandom(16)
    last = zstandard.ZstdCompressor(write_checksum=True).compress(sentinel)
    decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
    kept = b""
    with decompressor.stream_reader(followed_by(last), read_across_frames=True) as reader:
        while piece := reader.read(STEP_BYTES - len(sentinel)):
            kept += piece
            if len(kept) > len(sentinel):
                yield kept[: -len(sentinel)]
                kept = kept[-len(sentinel) :]
    if kept != sentinel:
        raise EOFError
