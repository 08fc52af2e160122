"""The ledger: one audit record per stored batch, written through the same sink as the batches.

Records are gathered for at most `LINGER_SECONDS` into record batches under a producer id of this receiver's own, and
delivered one batch at a time by a `RunWriter`, so within one life of a receiver nothing is in the ledger twice, unless
a run is lost, which is logged.

The ledger never delays a batch: `batch` and `report` only add a record to a bounded buffer, and a record that does not
fit is dropped and counted. A batch is acknowledged without waiting for its record, so a kill -9 loses up to
`LINGER_SECONDS` of records of stored batches; the holes show in the sequences (ledger_answer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from itertools import islice

import structlog

from logreceiver.ledger.records import BatchEntry, ReportEntry, encode
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks import Sink
from logreceiver.sinks.run_writer import RunLost, RunWriter
from streams import tasks
from streams.errors import Code, SinkUnavailable
from streams.records.batch import HEADER_BYTES, Codec, build

LINGER_SECONDS = 0.2
MAX_BATCH_RECORDS = 1000
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""About 14 000 batches, kept while the ledger cannot be written."""
MAX_WAITING_REPORTS = 10_000
FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.1, 30.0
STOP_SECONDS = 5.0
"""How long a clean stop waits for the last records."""
_FRAME_BYTES = 32  # an upper bound on what a record batch adds to a record of this size

log = structlog.get_logger("logreceiver.ledger")


class _TooLarge(Exception):
    """The sink refuses a ledger batch as too large: certainly not stored."""


class Ledger:
    """`async with Ledger(...)`: writes in the background until the block ends."""

    def __init__(self, topic: str, sink: Sink, metrics: ReceiverMetrics) -> None:
        self.topic = topic
        self._sink = sink
        self._metrics = metrics
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reports: dict[tuple[str, str, str, str], ReportEntry] = {}
        """The newest totals of each boot of each forwarder's stream; encoded when they are written."""
        self._some = asyncio.Event()
        """Something waits."""
        self._enough = asyncio.Event()
        """A full batch waits, or the ledger closes: no reason to linger."""
        self._run: RunWriter | None = None
        """None until the sink was reached, and after a run was lost."""
        self._max_bytes = 0
        """How large a batch may be: the topic's limit, or less once the sink refused one."""
        self.trouble = ""
        """Why the ledger cannot be written now; empty while it can."""
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._losing = False
        """A loss was logged; the next one is logged again only after everything was written."""
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ledger:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to write."""
        self._writer = tasks.vital("ledger", self._write())

    async def close(self) -> None:
        """Write the remaining records, for at most a few seconds."""
        self._closing = True
        self._some.set()
        self._enough.set()
        assert self._writer is not None
        await asyncio.wait([self._writer], timeout=0 if self.trouble else STOP_SECONDS)
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        if lost := len(self._waiting) + len(self._reports):
            self._lost(lost)

    # -- taking ------------------------------------------------------------------------------------------------

    def batch(self, entry: BatchEntry) -> None:
        """Take one record; returns at once."""
        self._add(encode(entry))

    def report(self, entry: ReportEntry) -> None:
        """Take a forwarder's totals; they are cumulative, so only the newest waiting report is kept."""
        key = (entry.identity, entry.forwarder_id, entry.stream, entry.boot_id)
        if key not in self._reports and len(self._reports) >= MAX_WAITING_REPORTS:
            self._lost(1)
            return
        self._reports[key] = entry
        self._some.set()

    def _add(self, value: bytes) -> None:
        if self._waiting_bytes + len(value) > MAX_WAITING_BYTES:
            self._lost(1)
            return
        self._waiting.append(value)
        self._waiting_bytes += len(value)
        self._some.set()
        if len(self._waiting) >= MAX_BATCH_RECORDS:
            self._enough.set()

    def _lost(self, records: int) -> None:
        self._metrics.ledger_dropped.inc(records)
        if not self._losing:
            self._losing = True
            log.error(
                "ledger records lost",
                topic=self.topic,
                reason=self.trouble or "they arrive faster than they can be written",
                remedy="logreceiver_ledger_dropped_total counts them; the batches themselves are stored",
            )

    # -- writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while self._some.is_set() or not self._closing:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._enough.wait()
            try:
                await self._write_waiting()
            except Exception:
                log.exception("ledger write failed")
                self._run = None  # whether its last batch is stored is unknown
                await self._pause()

    async def _write_waiting(self) -> None:
        """Write everything that is waiting now, batch by batch; records leave the buffer once they are stored."""
        reports, self._reports = self._reports, {}
        for entry in reports.values():
            self._add(encode(entry))
        left = len(self._waiting)
        while left > 0:  # records that arrive meanwhile wait for the next time
            await self._open_run()  # which knows how large a batch may be
            count, size = self._next_batch()
            if size > self._max_bytes:  # a single record
                self._leave(count)
                self._lost(count)
                left -= count
                continue
            try:
                await self._deliver(list(islice(self._waiting, count)))
            except _TooLarge:
                self._max_bytes = min(self._max_bytes, size) // 2  # learnt again with the next run
                continue
            self._leave(count)
            left -= count
        if not self._waiting and not self._reports:
            self._losing = False
            self._some.clear()
        if len(self._waiting) < MAX_BATCH_RECORDS and not self._closing:
            self._enough.clear()

    def _next_batch(self) -> tuple[int, int]:
        """How many of the oldest records make up the next batch, at least one; and its size without compression."""
        count, size = 0, HEADER_BYTES
        for value in self._waiting:
            if count and (count >= MAX_BATCH_RECORDS or size + len(value) + _FRAME_BYTES > self._max_bytes):
                break
            count, size = count + 1, size + len(value) + _FRAME_BYTES
        return count, size

    def _leave(self, count: int) -> None:
        for _ in range(count):
            self._waiting_bytes -= len(self._waiting.popleft())

    async def _open_run(self) -> RunWriter:
        """The run in use, or a new one; waits until the sink can be used."""
        while self._run is None:
            try:
                topic = await self._sink.topic(self.topic)
                producer_id = await self._sink.new_producer_id()
            except SinkUnavailable as error:
                await self._troubled(str(error))
                continue
            self._max_bytes = topic.max_message_bytes
            partition = producer_id % topic.partition_count  # receivers share the partitions
            self._run = RunWriter(self._sink, self.topic, partition, producer_id, self._not_stored, may_forget=True)
        return self._run

    async def _deliver(self, values: list[bytes]) -> None:
        """Returns when the records are stored. _TooLarge if they certainly cannot be, in one batch."""
        while True:
            run = await self._open_run()
            try:
                outcome = await run.store(build(values, timestamp_ms=int(time.time() * 1000), codec=Codec.ZSTD))
            except RunLost as error:
                log.warning(
                    "ledger producer replaced",
                    topic=self.topic,
                    reason=str(error),
                    records_possibly_repeated=len(values),
                )
                self._run = None
                continue
            if outcome.is_stored:
                self._calm()
                return
            if outcome.code is Code.TOO_LARGE:
                raise _TooLarge
            await self._troubled(outcome.text or str(outcome.code))

    async def _not_stored(self, code: Code, text: str) -> None:
        await self._troubled(text or str(code))
        if code is Code.TOPIC_MISSING:
            with contextlib.suppress(SinkUnavailable):
                await self._sink.topic(self.topic)  # recreates it, where that is allowed

    # -- trouble -----------------------------------------------------------------------------------------------

    async def _troubled(self, reason: str) -> None:
        """Log once that the ledger cannot be written, and wait, longer each time."""
        if not self.trouble:
            log.error("ledger unavailable", topic=self.topic, reason=reason)
        self.trouble = reason
        await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 — spreads load
        self._pause_seconds = min(self._pause_seconds * 2, MOST_PAUSE_SECONDS)

    def _calm(self) -> None:
        if self.trouble:
            log.info("ledger available again", topic=self.topic)
        self.trouble, self._pause_seconds = "", FIRST_PAUSE_SECONDS
