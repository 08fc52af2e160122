"""One original stream and its twins: source → batcher → seal → spool → senders. Reads like the picture.

    source ──block──▶ batcher ──portions of drafts──▶ seal (threads) ──batches──▶ spool ──▶ sender, one for each stream
                                                                                    │
    source ◀──positions committed───────────────────────────────────────────────────┘

A twin forks after the seal: one blob, one row for each stream. Drafts are sealed in parallel and committed whole, in
the order they were cut; the records of one are compressed while it is still gathered. Every queue is short, so that
pressure travels back to the source by itself. An error of the spool ends the pipeline; its keeper builds it again from
what is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakSet

import msgspec
import structlog

from logfwd.clocks import clock
from logfwd.definition import Stream
from logfwd.intake.batcher import Batcher, Portion
from logfwd.intake.batches import FRAMING_ALLOWANCE, Rules
from logfwd.intake.seal import Sealed, Sealer
from logfwd.intake.shape import make_shape
from logfwd.intake.threads import SealThreads
from logfwd.links.delivery import Delivery
from logfwd.links.sender import Connect, Sender
from logfwd.metrics import ForwarderMetrics
from logfwd.sources import Source
from logfwd.sources.file.source import FileTail
from logfwd.sources.permits import Permit
from logfwd.sources.position import Block, Position, Receipt
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Row
from logfwd.spool.store import Spool
from logfwd.tap import Taps
from streams.config.units import KIB, MIB
from streams.errors import SpoolFull
from streams.records.batch import Codec

SEALED_DRAFTS = 2
COMMITS_IN_FLIGHT = 4
PAYLOADS_IN_MEMORY = 8
PAYLOAD_BYTES_IN_MEMORY, ALL_PAYLOAD_BYTES_IN_MEMORY = 2 * MIB, 16 * MIB
"""Of one pipeline, and about so much of all of them."""
ROOM_CHECK_SECONDS = 0.02
FULL_SECONDS = 1.0
ROOM_FOR_BATCHES_BYTES = 64 * KIB
"""Of a spool's budget, what requests leave to the batches that they become: headers, rows, short records."""
REMEDIES = {
    "disk": "free some space on its disk",
    "max_spool_bytes": "see why its receivers are away or slow, or raise the limit",
    "max_waiting_batches": "see why its receivers are away or slow, raise the limit, or make batches larger by linger",
}
KEEP_UP_SECONDS = 0.05
"""Longest that a batch waits for a link that keeps up, so that it is sent from memory and not read back from disk."""


class _Sealing(msgspec.Struct, eq=False):
    """A draft that threads are sealing, without its blocks, which are not needed once they are records."""

    sealer: Sealer
    last: Future[Sealed] | None = None
    """Of its portions, the last one so far."""
    positions: dict[str, Position] = {}
    awaited: list[tuple[int, Block]] = []
    block_count: int = 0
    byte_count: int = 0
    cut_at: float = 0.0

    def note(self, portion: Portion) -> None:
        """Remember of a portion what the commit needs."""
        self.positions |= portion.positions()
        self.awaited += [(self.block_count + index, block) for index, block in portion.awaited()]
        self.block_count += len(portion.blocks)
        self.byte_count += portion.byte_count

    @property
    def receipts(self) -> list[Receipt]:
        """One for each block that somebody waits for."""
        return [block.receipt for _, block in self.awaited if block.receipt is not None]


class _Commit(msgspec.Struct, frozen=True):
    """A batch on its way to the disk, and what to update once it is there."""

    done: asyncio.Future[None]
    rows: Sequence[tuple[Backlog, Sequence[Row], bool]]
    """Of each stream; True if so much waited before them that their payloads need not be kept."""
    positions: Mapping[str, Position]
    receipts: Sequence[Receipt]
    sealed_at: float


class _Full(NamedTuple):
    """Why the source waits for room, and since when."""

    reason: str = ""
    since: float = 0.0

    def lasts(self, now: float) -> bool:
        """Not only until the next acknowledgement."""
        return now - self.since >= FULL_SECONDS


class Pipeline:
    """Runs one original stream and its twins on an opened spool."""

    def __init__(
        self,
        original: Stream,
        twins: Sequence[Stream],
        source: Source,
        spool: Spool,
        metrics: ForwarderMetrics,
        threads: SealThreads,
        connect: Callable[[Stream], Connect],
        *,
        boot_id: str,
        answer_timeout_seconds: float,
        receivers: Callable[[Stream], int] = lambda _: 1,
        permit: Permit | None = None,
        taps: Taps | None = None,
    ) -> None:
        """`receivers`: to how many `connect` makes a stream's links, in turn; `permit`: the source's."""
        self.original, self.source, self._taps = original, source, taps or Taps()
        self._spool, self._metrics, self._threads = spool, metrics, threads
        self._permit = permit or threads.permits.for_a_stream()
        self._rules, self._batcher = _rules(original), Batcher(original.batch)
        self._seal_seconds = metrics.batch_stage.labels(original.name, "seal")  # looked up once, as in delivery.py
        names = [stream.name for stream in (original, *twins)]
        self._spool_seconds = {name: metrics.batch_stage.labels(name, "spool") for name in names}
        self._accepted = {name: metrics.records.labels(name, "accepted") for name in names}
        self._invalid = {name: metrics.records.labels(name, "invalid") for name in names}
        self._backlogs: list[Backlog] = []
        """The original's, then those of its twins; `senders` has the same order."""
        self.senders: list[Sender] = []
        make_delivery = partial(Delivery, boot_id=boot_id, answer_timeout_seconds=answer_timeout_seconds)
        for stream in (original, *twins):
            backlog = _backlog(spool, stream)
            delivery = make_delivery(stream, backlog, spool, metrics)
            self._backlogs.append(backlog)
            self.senders.append(Sender(delivery, connect(stream), receivers=receivers(stream)))
        self._sealing: asyncio.Queue[_Sealing | None] = asyncio.Queue(SEALED_DRAFTS)
        """Drafts in the order in which they were cut, whichever is sealed first; None after the last."""
        self._gathered: _Sealing | None = None
        """The draft of which portions are being sealed and more are to come."""
        self._commits: asyncio.Queue[_Commit | None] = asyncio.Queue(COMMITS_IN_FLIGHT)
        """Commits in the order in which they were handed to the spool; None after the last."""
        self._stop_reading = asyncio.Event()
        self._under_way = 0
        """Drafts that are being sealed or committed."""
        self._settled: asyncio.Future[None] | None = None
        """Done when no draft is under way: then what a client waits for is sealed without lingering."""
        self._refused: WeakSet[Receipt] = WeakSet()
        """Receipts of requests of which a part was refused, so that no later part is stored."""
        self._evicted_keys, self._full = 0, _Full()
        self.log = structlog.get_logger("logfwd.pipeline").bind(stream=original.name)

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the source is exhausted (or reading was stopped) and everything is acknowledged."""
        with self._threads.for_a_stream():
            await self._run()

    async def _run(self) -> None:
        intake = [asyncio.create_task(part) for part in (self._read(), self._spool_batches(), self._finish_commits())]
        senders = [asyncio.create_task(sender.run()) for sender in self.senders]
        drained = asyncio.create_task(self._drained(intake[-1]))
        watching = asyncio.create_task(self._spool.raise_when_broken(until=drained))
        tasks = (*intake, *senders, drained, watching)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is being sealed or committed."""
        return self._under_way > 0

    async def use(self, connect: Callable[[Stream], Connect], receivers: Callable[[Stream], int]) -> None:
        """Make links in another way from now on."""
        for sender in self.senders:
            await sender.use(connect(sender.stream), receivers=receivers(sender.stream))

    def stop_reading(self) -> None:
        """Take nothing more from the source; `run` seals the blocks that were read, drains, and returns."""
        self._stop_reading.set()

    def troubles(self) -> dict[str, str]:
        """What keeps a part of the source, or a batch, waiting: reasons by name."""
        letters = self.senders[0].delivery.trouble
        waits = {"dead letters": letters, "spool": self._full.reason if self._full.lasts(clock()) else ""}
        return {**self.source.health(), **{part: reason for part, reason in waits.items() if reason}}

    def unreadable(self) -> Mapping[str, str]:
        """Files and directories of the source that cannot be read, by path."""
        return self.source.unreadable() if isinstance(self.source, FileTail) else {}

    def room_bytes(self) -> float:
        """How many bytes of requests the spool may still take; so few that they fit when they are batches."""
        original = self._backlogs[0]
        if not self._spool.has_disk_room():
            return 0
        if original.drops_oldest:
            return math.inf
        room = 0 if original.full_limit(0) else original.room_bytes
        return max(room - room // (FRAMING_ALLOWANCE + 1) - ROOM_FOR_BATCHES_BYTES, 0)

    async def _drained(self, intake: asyncio.Task[None]) -> None:
        await asyncio.shield(intake)
        while self._must_wait_for_acknowledgements():
            self._spool.raise_if_broken()
            await asyncio.sleep(ROOM_CHECK_SECONDS)
        for sender in self.senders:
            sender.stop()

    def _must_wait_for_acknowledgements(self) -> bool:
        """The original has to drain; a twin only while it has a link: it never holds up its original."""
        original, *twins = self.senders
        waits = original.backlog.waiting_batches
        return bool(waits) or any(twin.connected and twin.backlog.waiting_batches for twin in twins)

    # -- source → batcher → seal ---------------------------------------------------------------------------------

    async def _read(self) -> None:
        batcher, rest = self._batcher, list[Block]()
        stop = asyncio.create_task(self._stop_reading.wait())
        async with contextlib.aclosing(self.source.blocks(self._spool.positions)) as blocks:
            pull: asyncio.Future[Block | None] | None = None
            try:
                while not stop.done():
                    if batcher.is_awaited and not self._under_way and (last := batcher.flush(clock())) is not None:
                        await self._seal(last)  # what comes while it is committed gathers meanwhile
                    pull = pull or asyncio.ensure_future(anext(blocks, None))
                    await self._wait_for_block(pull, stop)
                    if pull.done():
                        if (block := pull.result()) is None:
                            break
                        reads_ahead = not self._threads.permits.are_used_up
                        pull = asyncio.ensure_future(anext(blocks, None)) if reads_ahead else None
                        portions = batcher.add(block, clock())
                        del block  # sealing frees it while this waits: nothing else has it here
                        await self._seal_all(portions)
                    elif (due := batcher.due(clock())) is not None:
                        await self._seal(due)
            finally:
                tasks: list[asyncio.Future[Any]] = [stop] if pull is None else [pull, stop]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if pull is not None and not pull.cancelled() and (block := pull.result()) is not None:
                rest.append(block)  # it came at the moment of the stop
        for block in chain(rest, self.source.stop()):
            await self._seal_all(batcher.add(block, clock()))
            await asyncio.sleep(0)  # to make a block may take a while
        if (last := batcher.flush(clock())) is not None:
            await self._seal(last)
        await self._sealing.put(None)

    async def _wait_for_block(self, *changes: asyncio.Future[Any]) -> None:
        """Until one of these, until the open draft is due, or may be sealed for somebody who waits."""
        if any(change.done() for change in changes):
            return
        deadline = self._batcher.deadline()
        timeout = None if deadline is None else max(deadline - clock(), 0.0)
        settled = [self._until_settled()] if self._batcher.is_awaited else []
        await asyncio.wait([*changes, *settled], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _seal_all(self, portions: Sequence[Portion]) -> None:
        for portion in portions:
            await self._seal(portion)

    async def _seal(self, portion: Portion) -> None:
        """Hand a portion to a thread, and the draft on to be spooled if it ends there."""
        sealing = self._gathered or _Sealing(Sealer(self._rules, portion.oldest_read_at_ms))
        self._gathered = None if portion.ends_draft else sealing
        sealing.note(portion)
        work = sealing.sealer.portion(portion.drain(), is_last=portion.ends_draft)
        sealing.last = await self._threads.start(work)
        if portion.ends_draft:
            self._under_way += 1
            sealing.cut_at = clock()
            with self._permit.not_needed():
                await self._sealing.put(sealing)

    def _until_settled(self) -> asyncio.Future[None]:
        """Done when no draft is under way any more."""
        if self._settled is None or self._settled.done():
            self._settled = asyncio.get_running_loop().create_future()
        return self._settled

    def _one_settled(self) -> None:
        self._under_way -= 1
        if not self._under_way and self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    # -- seal → spool → senders ----------------------------------------------------------------------------------

    async def _spool_batches(self) -> None:
        while (sealing := await self._sealing.get()) is not None:
            assert sealing.last is not None
            sealed = await asyncio.wrap_future(sealing.last)
            sealed_at, size = clock(), sum(len(batch.payload) for batch in sealed.batches)
            self._batcher.sealed(sealing.byte_count, size)
            self._seal_seconds.observe(sealed_at - sealing.cut_at)
            await self._let_link_keep_up()
            await self._room_for(size)
            # nothing is awaited between here and `_accept`: the room that was found is still there
            if sealing.receipts and self._must_refuse(sealing.receipts, sealed):
                self._refuse(sealing.receipts)
            else:
                await self._commits.put(self._accept(sealed, sealing, sealed_at))
            del sealed, sealing  # they would keep its payloads until there is another draft
        await self._commits.put(None)

    def _must_refuse(self, receipts: Sequence[Receipt], sealed: Sealed) -> bool:
        """True for a draft that somebody waits for and of which the original would drop a batch at once.

        Such a draft is stored whole or not at all, and nothing is stored of a request that follows a part which was
        refused: so a client that sends it again repeats nothing.
        """
        if any(receipt in self._refused for receipt in receipts):
            return True
        return not self._backlogs[0].can_keep([len(batch.payload) for batch in sealed.batches])

    def _refuse(self, receipts: Sequence[Receipt]) -> None:
        path = self._spool.path
        error = SpoolFull(f"{path}: max_spool_bytes is used up by batches that may have been sent; try again later")
        for receipt in receipts:
            self._refused.add(receipt)
            receipt.failed(error)
        self._one_settled()

    async def _let_link_keep_up(self) -> None:
        """Follow the pace of a link that keeps up; a slow or missing link does not keep batches off the disk."""
        sender = self.senders[0]
        backlog = self._backlogs[0]
        many = len(backlog.rows) >= PAYLOADS_IN_MEMORY or backlog.waiting_bytes >= self._most_payload_bytes
        if sender.connected and many:
            sender.delivery.progress.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_UP_SECONDS):
                    await sender.delivery.progress.wait()

    @property
    def _most_payload_bytes(self) -> int:
        """Of batches that wait, what may be in memory."""
        return min(PAYLOAD_BYTES_IN_MEMORY, ALL_PAYLOAD_BYTES_IN_MEMORY // self._threads.streams)

    async def _room_for(self, size: int) -> None:
        """Wait while the original's spool, or the disk, is full. Twins never hold up their original."""
        while not (self._backlogs[0].has_room(size) and self._spool.has_disk_room()):
            if not self._full.reason:
                full = self._backlogs[0].full_limit(size) or "disk"
                self.log.warning("spool full", limit=full, spool=str(self._spool.path), remedy=REMEDIES[full])
                self._full = _Full(f"the spool is full ({full}), so the source waits: {REMEDIES[full]}", clock())
            await asyncio.sleep(ROOM_CHECK_SECONDS)
        self._full = _Full()

    def _accept(self, sealed: Sealed, sealing: _Sealing, sealed_at: float) -> _Commit:
        notes, blobs = Notes(), self._spool.blobs
        ids = [blobs.add(batch.payload, notes) for batch in sealed.batches]
        rows = []
        for backlog in self._backlogs:
            dropped, is_behind = backlog.totals.dropped, backlog.waiting_bytes >= self._most_payload_bytes
            accepted = backlog.accept(sealed.batches, ids, sealed.invalid, sealed_at, notes)
            rows.append((backlog, accepted, is_behind))
            self._count(backlog, sealed, backlog.totals.dropped - dropped)
        for blob in ids:
            blobs.discard_unused(blob, notes)  # dropped by every stream
        positions = dict(sealing.positions)
        for index, block in sealing.awaited:
            positions |= block.positions or {}
            if block.progress is not None and (key := block.progress(*sealed.of_blocks[index])) is not None:
                self._spool.keys.put(*key, notes)
        notes.put_positions(positions, self.source.forgotten())
        done = self._spool.commit(notes)
        done.add_done_callback(_look_at)
        self._count_evicted_keys()
        return _Commit(done, rows, positions, sealing.receipts, sealed_at)

    def _count_evicted_keys(self) -> None:
        evicted = self._spool.keys.evicted
        if evicted > self._evicted_keys:
            self._metrics.evicted_keys.labels(self.original.name).inc(evicted - self._evicted_keys)
            self._evicted_keys = evicted

    def _count(self, backlog: Backlog, sealed: Sealed, dropped: int) -> None:
        name = backlog.stream
        self._accepted[name].inc(sum(batch.record_count for batch in sealed.batches))
        self._invalid[name].inc(sealed.invalid)
        if dropped:
            self._metrics.records.labels(name, "dropped").inc(dropped)
            self.log.warning("oldest records dropped", of=name, records=dropped)

    async def _finish_commits(self) -> None:
        """The sender woken first sends first, so they take turns: else every twin would look slower than it is."""
        turns = deque(self.senders)
        while (commit := await self._commits.get()) is not None:
            await commit.done
            self._finish(commit)
            for sender in turns:
                sender.wake.set()
            turns.rotate()
            del commit  # it would keep its payloads until there is another one

    def _finish(self, commit: _Commit) -> None:
        now = clock()
        for backlog, rows, is_behind in commit.rows:
            self._spool_seconds[backlog.stream].observe(now - commit.sealed_at)
            self._taps.offer(backlog.stream, rows)
            crowded = is_behind or len(backlog.rows) > PAYLOADS_IN_MEMORY
            for row in rows:
                row.committed_at = now  # before the senders wake: they send only what is committed
                if crowded:
                    row.payload = None
        self.source.committed(commit.positions)
        self._one_settled()
        for receipt in commit.receipts:
            receipt.done()


def _backlog(spool: Spool, stream: Stream) -> Backlog:
    limits = stream.spool
    backlog = spool.backlog(
        stream.name,
        max_bytes=limits.max_spool_bytes,
        max_batches=limits.max_waiting_batches,
        drops_oldest=stream.mirror_of is not None or limits.when_full == "drop_oldest",
    )
    backlog.dead_letters.max_bytes = limits.dead_letter_bytes
    return backlog


def _look_at(done: asyncio.Future[None]) -> None:
    """Of several commits that fail together one ends the pipeline; asyncio need not report the others."""
    if not done.cancelled():
        done.exception()


def _rules(stream: Stream) -> Rules:
    limits = stream.batch
    return Rules(
        invalid="drop" if stream.invalid == "drop" else "wrap",
        max_record_bytes=limits.max_record_bytes,
        max_batch_records=limits.max_batch_records,
        max_batch_bytes=limits.max_batch_bytes,
        max_uncompressed_bytes=limits.max_uncompressed_bytes,
        codec=Codec[stream.codec.upper()],
        shape=make_shape(stream),
    )
