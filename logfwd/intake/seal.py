"""Blocks of records -> record batches, ready for the spool: validated, framed, compressed, with their CRC.

This is the most expensive thing a forwarder does, so it runs on a pool of threads, over whole blocks; zstd and CRC
release the interpreter meanwhile. Pure: the same blocks give batches of the same records, and order is kept.

The records of a draft are compressed as they come, portion by portion, into one open batch, which is closed when it is
well filled or the draft ends. So a batch is full by what it takes when it is sent, and a forwarder need not keep what
it held before.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from logfwd.intake.batches import Framing, Packing, Rules
from logfwd.intake.shape import Part, Shape, split
from logfwd.sources.position import Block
from streams.records.batch import Packed, compressed
from streams.records.body import Extras


class Sealed(NamedTuple):
    """The batches of a draft, in order (none if no record was left), and how many lines were invalid or blank."""

    batches: list[Packed]
    invalid: int
    blank: int
    of_blocks: list[tuple[int, int]]
    """Of each block: its records, and its lines that were invalid."""


class Sealer:
    """Seals one draft: the records of its blocks, in order, as unstamped batches.

    Several threads look through its portions at once, and compress them; in between they take turns. So none of them
    waits for another one's zstd while it holds records, which would leave the processor's caches meanwhile.

    Only a batch of a single record can be larger than `max_batch_bytes` and its allowance. There is more than one if
    records are many, or if they compress worse than those of the draft before.
    """

    def __init__(self, rules: Rules, timestamp_ms: int) -> None:
        self._rules = rules
        self._framing, self._packing = Framing(rules), Packing(rules, timestamp_ms)
        self._turns_to_frame, self._turns_to_pack = Turns(), Turns()
        self._portions = 0
        self._sealed = Sealed(self._packing.batches, 0, 0, [])

    def portion(self, blocks: Iterable[Block], *, is_last: bool) -> Callable[[], Sealed]:
        """The next portion; calling this seals it, and returns what the draft has become so far.

        Portions wait for those before them: so these are sealed first, or on other threads.
        """
        number, self._portions = self._portions, self._portions + 1
        return lambda: self._seal(number, blocks, is_last)

    def _seal(self, number: int, blocks: Iterable[Block], is_last: bool) -> Sealed:
        rules, packing = self._rules, self._packing
        with self._turns_to_frame.ending_with_errors(), self._turns_to_pack.ending_with_errors():
            parts = [
                split(rules.shape, block, invalid=rules.invalid, max_record_bytes=rules.max_record_bytes)
                for block in blocks
            ]
            of_blocks = [(len(each.values), each.invalid) for each in parts]
            blank = sum(each.blank for each in parts)
            values = list(chain.from_iterable(each.values for each in parts))
            extras = _extras(parts, rules.shape)
            del parts
            with self._turns_to_frame.turn(number):
                pieces = self._framing.frame(values, extras, full=packing.full)
            packed = [compressed(piece.records, rules.codec) for piece in pieces]
            with self._turns_to_pack.turn(number):
                for index, (piece, data) in enumerate(zip(pieces, packed, strict=True), 1):
                    packing.add(piece, data, is_last=is_last and index == len(pieces))
                if is_last:
                    packing.close()
                batches, invalid, blank_before, of_blocks_before = self._sealed
                invalid += sum(each_invalid for _, each_invalid in of_blocks)
                self._sealed = Sealed(batches, invalid, blank_before + blank, of_blocks_before + of_blocks)
                return self._sealed


def seal(blocks: Iterable[Block], rules: Rules, *, timestamp_ms: int) -> Sealed:
    """A draft whose blocks are all there."""
    return Sealer(rules, timestamp_ms).portion(blocks, is_last=True)()


class Turns:
    """Threads that do something one after the other, in the order of their numbers; an error of one is the end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._has_ended = False

    @contextlib.contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Do it when all before this one have; RuntimeError if one of them never will."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number or self._has_ended)
            if self._has_ended:
                raise RuntimeError("a portion before this one could not be sealed")
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def ending_with_errors(self) -> Iterator[None]:
        """An error in the block is the end of all turns."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
            raise


def _extras(parts: Sequence[Part], shape: Shape) -> Extras:
    """What is framed with the values of all parts."""
    keys = None if shape.key_field is None else [key for each in parts for key in each.keys]
    if all(each.opening == shape.opening for each in parts):
        return Extras(shape.opening, None, keys, shape.headers)
    openings: list[bytes] = []  # of files: too many to be `opening`, for each of which framing keeps tables
    for each in parts:
        openings += [each.opening] * len(each.values)
    return Extras(b"", openings, keys, shape.headers)
