"""Records as they pass, for an operator who looks on (`logfwd tap`), without any effect on their delivery.

A pipeline offers each batch once it is durable; an offer takes a reference or leaves it, and never waits. A tap takes
no more batches than its rate allows, reads them on a thread, and holds at most MOST_WAITING_BYTES of them for a client
that is slow or stopped. Records that nobody gets to see are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Sequence

import msgspec
import structlog

from logfwd.clocks import clock
from logfwd.spool.rows import Row
from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch
from streams.records.body import headers_of
from streams.records.glimpse import first_records
from streams.records.printed import printed

MOST_TAPS = 8
MOST_RATE = 1000.0
MOST_WAITING_BYTES = 1024 * 1024
MOST_WAITING_BATCHES = 100
LOOKS_PER_SECOND = 10
"""Of a busy stream, how many batches are looked at: each has to be decompressed."""
MOST_LOOK_BYTES = 256 * 1024
"""Of one batch, how many bytes are decompressed and shown, unless its first record is longer."""

log = structlog.get_logger("logfwd.tap")


class Line(msgspec.Struct, omit_defaults=True):
    """A record, or with `error` the reason why there are no more."""

    stream: str
    time: str = ""
    key: str | None = None
    headers: dict[str, str | None] | None = None
    unseen: int = 0
    """Records that passed unseen since the one before."""
    record: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class Tap:
    """One client's view of one stream: `offer` on one side, `next` on the other, in one event loop."""

    def __init__(self, stream: str, rate: float, now: Callable[[], float] = clock) -> None:
        self.stream, self._rate, self._now = stream, rate, now
        self._least = max(rate / LOOKS_PER_SECOND, 1.0)
        """As many records as a look at a busy stream shows."""
        self._left, self._at = rate, now()
        self._waiting: deque[tuple[bytes, int, int]] = deque()
        """Payloads, how many records of each to show, and how many it has."""
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._told = self._untold = 0
        """Records that were left out: those that a line has told of, and the others."""
        self.shown = 0
        self.ended = False

    def offer(self, payload: bytes | None, record_count: int) -> None:
        """Take a batch, or count it as unseen."""
        now = self._now()
        self._left, self._at = min(self._left + self._rate * (now - self._at), self._rate), now
        most = min(record_count, int(max(self._left, 0.0)))
        has_room = len(self._waiting) < MOST_WAITING_BATCHES and self._waiting_bytes < MOST_WAITING_BYTES
        if payload is None or not has_room or most < min(record_count, self._least):
            self._untold += record_count
            return
        self._left -= most
        self._waiting.append((payload, most, record_count))
        self._waiting_bytes += len(payload)
        self._wake.set()

    def end(self) -> None:
        """There is no such stream any more."""
        self.ended = True
        self._wake.set()

    async def next(self) -> bytes:
        """Lines of the next batch that has any to show; none after the end."""
        lines: list[bytes] = []
        while not lines:
            while not self._waiting and not self.ended:
                self._wake.clear()
                await self._wake.wait()
            if not self._waiting:
                break
            payload, most, record_count = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            untold = self._untold
            lines = await asyncio.to_thread(_lines, self.stream, payload, most, untold)
            if lines:
                self._untold, self._told = self._untold - untold, self._told + untold
            self._untold += record_count - len(lines)
            self.shown += len(lines)
        return b"".join(lines)

    @property
    def unseen(self) -> int:
        """Records that passed and were left out."""
        return self._told + self._untold


class Taps:
    """All taps of a forwarder, by stream. They outlive a pipeline that is built anew."""

    def __init__(self) -> None:
        self._taps: dict[str, list[Tap]] = {}

    def offer(self, stream: str, rows: Sequence[Row]) -> None:
        """Show batches that have become durable to who looks on."""
        for tap in self._taps.get(stream, ()):
            for row in rows:
                tap.offer(row.payload, row.record_count)

    def keep(self, streams: Iterable[str]) -> None:
        """End the taps of all streams but these."""
        for name in self._taps.keys() - set(streams):
            for tap in self._taps[name]:
                tap.end()

    async def lines(self, streams: Collection[str], stream: str, rate: object) -> AsyncGenerator[bytes, None]:
        """What a client gets: first a line without a record, then records; a line with an error ends it."""
        if not isinstance(rate, int | float) or not 1.0 <= rate <= MOST_RATE:
            raise ValueError(f"rate is from 1 to {MOST_RATE:.0f} records a second")
        if stream not in streams:
            yield _error(stream, f"there is no stream {stream!r}; existing streams: {', '.join(sorted(streams))}")
            return
        if sum(map(len, self._taps.values())) >= MOST_TAPS:
            yield _error(stream, f"{MOST_TAPS} taps are open, and more are not served; end one of them")
            return
        with self._tapped(stream, rate) as tap:
            yield _encoded(Line(stream))
            while lines := await tap.next():
                yield lines
        yield _error(stream, "the stream was removed")

    @contextlib.contextmanager
    def _tapped(self, stream: str, rate: float) -> Iterator[Tap]:
        tap = Tap(stream, rate)
        self._taps.setdefault(stream, []).append(tap)
        try:
            yield tap
        finally:
            self._taps[stream].remove(tap)
            if not self._taps[stream]:
                del self._taps[stream]
            log.info("tap ended", stream=stream, shown=tap.shown, unseen=tap.unseen)


def _lines(stream: str, payload: bytes, most: int, unseen: int) -> list[bytes]:
    """A line for each of the first records of a batch."""
    lines: list[bytes] = []
    with contextlib.suppress(BatchCorrupt):  # the receiver tells of it
        for record in first_records(payload, most, MOST_LOOK_BYTES):
            lines.append(_encoded(_line(stream, record, 0 if lines else unseen)))
    return lines


def _line(stream: str, record: recordbatch.Record, unseen: int) -> Line:
    time = datetime.datetime.fromtimestamp(record.timestamp_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
    headers = {_text(name): None if value is None else _text(value) for name, value in headers_of(record.headers)}
    return Line(
        stream,
        time=time,
        key=None if record.key is None else _text(record.key),
        headers=headers or None,
        unseen=unseen,
        record=msgspec.Raw(printed(record.value or b"")),
    )


def _text(of: bytes) -> str:
    return of.decode(errors="backslashreplace")


def _error(stream: str, error: str) -> bytes:
    return _encoded(Line(stream, error=error))


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
