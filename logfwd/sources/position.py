"""Blocks of records, and the positions at which a source goes on after them.

What the spool stores for a key is a `Position`: which kind of source reads it back, and bytes that only that source
understands. Sources of lines that can be read again, such as files, encode a `Mark` there; `mark_after` makes it from
a block, so that a block which was cut in two has the right position after each part.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from logfwd.sources.keys import Key
from streams.decoding import MALFORMED
from streams.errors import PipelineError

FILE, STDIN, SYSLOG = "file", "stdin", "syslog"
"""The kinds of sources whose positions are marks."""

TAIL_BYTES = 1024
TAIL_HASH_BYTES = 16

_Count = Annotated[int, Meta(ge=0)]


class Position(msgspec.Struct, frozen=True):
    """Where a source goes on. Committed in the same transaction as the records before it.

    `source` is the kind of source that reads it back, `value` that source's own encoding. `expires` is the wall-clock
    second after which it may be deleted (None: never).
    """

    source: str
    value: bytes
    expires: float | None = None


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A position in something that can be read again.

    `tail_bytes` and `tail_hash` describe the last bytes before `offset`, so that a file which was replaced in place
    is recognised. `detail` belongs to the source and is opaque to everything else (msgpack).
    """

    offset: _Count
    tail_bytes: _Count = 0
    tail_hash: bytes = b""
    detail: bytes = b""

    def encode(self) -> bytes:
        """The mark as the value of a position: a msgpack array of its fields."""
        return _encode(self)

    @staticmethod
    def decode(value: bytes) -> Mark | None:
        """The mark that a position's value holds; None if it is not a valid one."""
        try:
            return _decode(value)
        except MALFORMED:
            return None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mark).decode


class Receipt(Protocol):
    """What a client that waits for a block hears of it, exactly once for every block that carries the receipt.

    The pipeline calls `done` and `failed`. Whoever handed the block over calls `unknown` when the pipeline ends before
    it has called either.
    """

    def done(self) -> None:
        """Every batch of the original stream that holds its records is durable in the spool."""

    def failed(self, error: PipelineError) -> None:
        """Its records are certainly not stored."""

    def unknown(self) -> None:
        """Its records may be stored or not: a commit failed, or the pipeline ended."""


Progress = Callable[[int, int], tuple[bytes, Key] | None]
"""Called with the number of records and of invalid lines that a block has, when these are about to be committed.

Returns the hash of its request's idempotency key, if it has one, and what is durable with this commit.
"""


class Block(msgspec.Struct, frozen=True):
    """Whole records of one source, in order, and the position of their first and last byte.

    Each record is a line, ended by a newline, unless the source gives `ends`: the offset in `data` after each record,
    ascending, the last one `len(data)`. Then newlines mean nothing.

    `end − start` differs from `len(data)` only where a newline was added to an unfinished last line.
    `key` names the position in the spool ("" where a source has none), `source` the kind of source that reads it back.

    `positions` are further ones, of the source's own, that the same transaction stores: those after the whole block, so
    a block with positions, or with a `receipt`, is never cut. With a receipt they are stored only if its records are,
    and so is the `progress` of the request that it is a part of.
    """

    data: bytes
    read_at_ms: int
    key: str = ""
    start: int = 0
    end: int = 0
    detail: bytes = b""
    ends: array[int] | None = None
    receipt: Receipt | None = None
    positions: Mapping[str, Position] | None = None
    progress: Progress | None = None
    source: str = FILE
    fields: bytes = b""
    """Members of a JSON object, without its braces, that every record of the block has in front of its own."""
    is_checked: bool = False
    """True if the source made every line: each is a JSON object that begins and ends with its brace."""

    @property
    def is_whole(self) -> bool:
        """True for a block that must not be cut."""
        return self.receipt is not None or self.positions is not None


def tail_hash(tail: bytes) -> bytes:
    """The hash by which a source recognises the bytes before its position (BLAKE2b, 16 bytes)."""
    return blake2b(tail, digest_size=TAIL_HASH_BYTES).digest()


def mark_after(block: Block) -> Mark:
    """The mark after a block; an added newline is not part of the file, so not of the tail."""
    length = min(block.end - block.start, len(block.data))
    tail = block.data[max(length - TAIL_BYTES, 0) : length]
    return Mark(block.end, len(tail), tail_hash(tail) if tail else b"", block.detail)


def position_after(block: Block) -> Position:
    """The position after a block of a source whose positions are marks."""
    return Position(block.source, mark_after(block).encode())
