"""The forwarder: one pipeline per original stream, built from the config; it reloads, and it stops.

Pipelines are independent: one that fails is restarted from its spool while the others go on (keeper.py). A new config
is applied stream by stream; one that is invalid, or that lacks a running stream, is rejected as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from logfwd import health, openfiles, state_dir, status
from logfwd.changes import Change, Group, groups
from logfwd.config import ForwarderConfig
from logfwd.intake import jsonlines
from logfwd.intake.threads import SealThreads
from logfwd.keeper import Keeper
from logfwd.leftovers import Ended, leftovers
from logfwd.links.connector import Connector
from logfwd.metrics import ForwarderMetrics
from logfwd.pipeline import Pipeline
from logfwd.reloading import Load, Reloading, Report
from logfwd.sources import Source
from logfwd.sources.front import Front
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.listeners import Counters, Listeners, Served
from logfwd.sources.make import Context, make_source
from logfwd.sources.permits import Permit
from logfwd.sources.settings import FileSource, SourceSettings, kind_of
from logfwd.sources.syslog import settings as syslog
from logfwd.spool import remains
from logfwd.spool.store import Spool
from logfwd.tap import Taps
from streams import calm, descriptors, tasks
from streams.security.modes import MODES
from streams.telemetry import admin
from streams.telemetry.metrics import CollectorRegistry

log = structlog.get_logger("logfwd")


class Forwarder:
    """`async with Forwarder(config)` starts everything; `finished` is set when every source has ended."""

    def __init__(self, config: ForwarderConfig) -> None:
        self.config = config
        self.registry = CollectorRegistry()
        self.metrics = ForwarderMetrics(self.registry)
        self.finished = asyncio.Event()
        self.taps = Taps()
        self.admin_address = ""
        self._boot_id = uuid.uuid4().hex
        self._threads = SealThreads()
        self._keepers: dict[str, Keeper] = {}
        self._draining: dict[str, Keeper] = {}
        """Of streams that were removed."""
        self._front = Front(is_busy=lambda: any(pipeline.is_busy for pipeline in self._pipelines()))
        syslog_counters = Counters(self.metrics.count_dropped_messages, self.metrics.count_ended_connection)
        self.listeners = Listeners(self._front, self.metrics, _count_invalid, syslog_counters)
        self._stack = contextlib.AsyncExitStack()
        self._reloading = Reloading(config, self._take, self.metrics)
        self._most_files = 0
        """How many files each stream may hold open."""

    async def __aenter__(self) -> Forwarder:
        self._stack.callback(self._threads.close)
        try:
            self._stack.enter_context(state_dir.lock(self.config.state_dir))
            self._reloading.start()
            if self.config.admin is not None:
                server = await self._stack.enter_async_context(
                    admin.serve(
                        self.config.admin.address,
                        self.registry,
                        ready=self._ready,
                        streams=self.describe,
                        durations=self.metrics.batch_duration.since,
                        prepare=self.metrics.prepare,
                        degraded=self._degraded,
                        further=lambda: {"config": self.metrics.config(), "certificates": self.metrics.certificates()},
                        source=lambda stream: status.source(self._pipelines(), stream),
                        program="logfwd",
                        hosts=self.config.admin.hosts,
                    )
                )
                self.admin_address = server.address
                log.info("admin listening", address=server.address)
            self.metrics.on_scrape(self._observe)
            self.metrics.on_scrape(lambda: self.metrics.count_task_failures(tasks.failures()))
            self.metrics.on_scrape(lambda: self.metrics.show_reasons(len(self._ready()), len(self._degraded())))
            self._share_descriptors()
            await self._listen()
            for group in groups(self.config).values():
                self._start(group)
            await self._drain_leftovers()
            await self._stack.enter_async_context(tasks.running("heap", lambda: calm.give_back(self._batch_bytes)))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reloading.stop()
        await self.listeners.stop()
        keepers = (*self._keepers.values(), *self._draining.values())
        if batches := self._waiting_batches():
            log.info("draining", batches=batches, within_seconds=self.config.stop_grace_seconds)
        await asyncio.gather(*(keeper.stop(self.config.stop_grace_seconds) for keeper in keepers))
        await self.listeners.close()
        await self._stack.aclose()

    def _share_descriptors(self) -> None:
        limit = descriptors.limit()
        self._most_files, wanted, _ = openfiles.share(self.config, limit)
        if wanted > limit:
            remedy = f"{openfiles.REMEDY}, or lower source.max_open_files"
            log.warning("few descriptors", limit=limit, wanted=wanted, files_each=self._most_files, remedy=remedy)

    async def _listen(self) -> None:
        """Serve the clients of the present configuration."""
        await self.listeners.serve(_served(self.config), _served_by_syslog(self.config))

    def _start(self, group: Group) -> None:
        keeper = Keeper(group, self._make_pipeline, self._one_finished)
        self._keepers[group[0].name] = keeper
        log.info(
            "stream started",
            stream=group[0].name,
            mode=group[0].security,
            twins={twin.name: twin.security for twin in group[1]},
        )

    async def _restart(self, group: Group) -> None:
        await self._keepers[group[0].name].stop(self.config.stop_grace_seconds)
        self._start(group)

    def _batch_bytes(self) -> int:
        backlogs = [pipeline.senders[0].backlog for pipeline in self._pipelines()]
        return sum(each.acknowledged_bytes + each.waiting_bytes for each in backlogs)

    def _one_finished(self) -> None:
        if all(keeper.finished for keeper in self._keepers.values()):
            self.finished.set()

    async def _drain_leftovers(self, gone: Collection[str] | None = None) -> None:
        """Send what waits in the spools of streams that are not configured any more, or of these alone."""
        configured = set(self._keepers)
        for left in await asyncio.to_thread(lambda: list(leftovers(self.config.state_dir, configured))):
            if gone is not None and left.name not in gone:
                continue
            if left.is_empty:
                _keep_empty(left.name, left.path)
                continue
            if left.group is None:
                _tell_of_removed(left.name, left.path.stat().st_size)
                continue
            log.info("removed stream draining", stream=left.name, mode=left.group[0].security, batches=left.batches)
            drained = partial(self._drained, left.name)
            self._draining[left.name] = Keeper(left.group, self._make_drain, drained)

    def _drained(self, name: str) -> None:
        self._draining.pop(name, None)
        self.metrics.remove_stream(name)
        remains.release_reserve(self.config.state_dir / f"{name}.spool")
        log.info("removed stream drained", stream=name)

    @contextlib.asynccontextmanager
    async def _make_drain(self, group: Group) -> AsyncIterator[Pipeline]:
        async with Spool(self.config.state_dir / f"{group[0].name}.spool") as spool:
            yield self._pipeline(group, Ended(), spool)

    # -- building ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _make_pipeline(self, group: Group) -> AsyncIterator[Pipeline]:
        original, twins = group
        source = original.source
        assert source is not None
        if isinstance(source, FileSource):
            source = msgspec.structs.replace(source, max_open_files=min(source.max_open_files, self._most_files))
        path = self.config.state_dir / f"{original.name}.spool"
        definition = msgspec.json.encode([original, *twins], enc_hook=str).decode()
        async with Spool(path, definition=definition) as spool:
            for name in spool.repeats_possible:
                self.metrics.run_resets.labels(name, "spool_damaged").inc()
            for name, records in spool.lost_records.items():
                self.metrics.records.labels(name, "dropped").inc(records)
            _tell_of_removed_twins(spool, {original.name, *(twin.name for twin in twins)})
            spool.keep_positions_of(kind_of(source))
            if isinstance(source, HttpSource):
                spool.keys.max_keys = source.max_keys
            with self._front.open(original.name) as handle:
                others = partial(self._sources_beyond, original.name)
                counters = (self.metrics.count_records, self.metrics.count_files, self.metrics.count_file_bytes)
                counts = (partial(count, original.name) for count in counters)
                limits, permit = original.batch, self._threads.permits.for_a_stream()
                context = Context(original.own_record_bytes, limits.max_batch_bytes, handle, permit, others, *counts)
                pipeline = self._pipeline(group, make_source(source, context), spool, permit)
                handle.start(pipeline.room_bytes, spool.key)
                yield pipeline

    def _pipeline(self, group: Group, source: Source, spool: Spool, permit: Permit | None = None) -> Pipeline:
        connector = Connector(self.config, self.metrics)
        return Pipeline(
            *group,
            source,
            spool,
            self.metrics,
            self._threads,
            connector.of,
            boot_id=self._boot_id,
            answer_timeout_seconds=self.config.answer_timeout_seconds,
            receivers=connector.receivers,
            permit=permit,
            taps=self.taps,
        )

    def _sources_beyond(self, name: str) -> list[SourceSettings]:
        """What the other streams read."""
        return [stream.source for stream in self.config.streams if stream.name != name and stream.source is not None]

    # -- reloading ---------------------------------------------------------------------------------------------

    async def reload(self, load: Load, *, check: bool = False, confirm: str = "") -> Report:
        """Load a configuration and take it; see reloading.py. At SIGHUP, or as an operator asks."""
        return await self._reloading.reload(load, check=check, confirm=confirm)

    async def _take(self, change: Change) -> None:
        """Apply a change, stream by stream."""
        before, self.config = self.config, change.config
        new = groups(self.config)
        self._share_descriptors()
        await self._listen()
        back = [self._draining.pop(name) for name in change.started if name in self._draining]
        await asyncio.gather(*(keeper.stop(0.0) for keeper in back))
        for name in change.started:
            self._start(new[name])
        connector = Connector(self.config, self.metrics)
        relinked = [self._keepers[name] for name in change.relinked]
        for keeper in (*relinked, *self._draining.values()):
            if keeper.pipeline is not None:
                await keeper.pipeline.use(connector.of, connector.receivers)
        removals = (self._remove(name) for name in change.removed)
        await asyncio.gather(*(self._restart(new[name]) for name in change.changed), *removals)
        if change.removed:
            await self._drain_leftovers(change.removed)
        for name in change.twins_gone:
            self.metrics.remove_stream(name)
        self.taps.keep(stream.name for stream in self.config.streams)
        self.metrics.forget_certificates(_sections(before) - _sections(self.config))

    async def _remove(self, name: str) -> None:
        """Stop a stream; what is not acknowledged within the grace is sent from its spool."""
        await self._keepers[name].stop(self.config.stop_grace_seconds)
        del self._keepers[name]
        self.metrics.remove_stream(name)
        log.info("stream removed", stream=name)

    def _waiting_batches(self) -> int:
        """Batches that are not acknowledged yet."""
        return sum(sender.backlog.waiting_batches for pipeline in self._pipelines() for sender in pipeline.senders)

    # -- what it reports ---------------------------------------------------------------------------------------

    def _ready(self) -> Mapping[str, str]:
        troubles = {part: reason for keeper in self._keepers.values() for part, reason in keeper.troubles().items()}
        return {**self.listeners.troubles(), **troubles}

    def troubles(self) -> Mapping[str, str]:
        """Why it is not ready, and what else is wrong."""
        return {**self._degraded(), **self._ready()}

    def _observe(self) -> None:
        for pipeline in self._pipelines():
            for sender in pipeline.senders:
                self.metrics.observe_backlog(sender.backlog)
            self.metrics.source_lag.labels(pipeline.original.name).set(pipeline.source.lag_bytes())

    def describe(self) -> list[dict[str, Any]]:
        """The rows of /api/v1/streams."""
        return status.rows(self._pipelines(), self.metrics)

    def _pipelines(self) -> Iterator[Pipeline]:
        keepers = (*self._keepers.values(), *self._draining.values())
        return (keeper.pipeline for keeper in keepers if keeper.pipeline is not None)

    def _degraded(self) -> Mapping[str, str]:
        drains = dict.fromkeys(self._draining, "it is not configured any more; what waits in its spool is being sent")
        links = health.degraded(self._pipelines(), self.metrics)
        return {**tasks.troubles(), **self._reloading.troubles(), **drains, **links}


def _tell_of_removed_twins(spool: Spool, configured: set[str]) -> None:
    """What waits for a removed twin takes room in the spool of its original, and is not sent."""
    for stream, waiting in spool.waiting.items():
        if stream not in configured:
            _tell_of_removed(stream, waiting.size)


def _keep_empty(stream: str, path: Path) -> None:
    remains.release_reserve(path)
    remedy = f"none is needed: the stream goes on there if it comes back; logfwd spool rm {stream} forgets it"
    log.info("positions of a removed stream", stream=stream, remedy=remedy)


def _tell_of_removed(stream: str, byte_count: int) -> None:
    remedy = "configure the stream again to send what waits, or delete it with logfwd spool rm"
    log.warning("spool of a removed stream", stream=stream, bytes=byte_count, remedy=remedy)


def _sections(config: ForwarderConfig) -> set[str]:
    """The sections with the certificates that its links present."""
    return {MODES[name].section for name in config.modes}


def _count_invalid(block: bytes, ends: Sequence[int] | None, max_record_bytes: int) -> int:
    return jsonlines.split(block, invalid="drop", max_record_bytes=max_record_bytes, ends=ends).invalid


def _served(config: ForwarderConfig) -> list[Served]:
    """The streams that take requests from listeners."""
    return [
        Served(
            stream.name,
            stream.source,
            stream.own_record_bytes,
            stream.batch.max_batch_bytes,
            stream.invalid == "refuse",
        )
        for stream in config.streams
        if isinstance(stream.source, HttpSource)
    ]


def _served_by_syslog(config: ForwarderConfig) -> list[syslog.Served]:
    """The streams that take syslog messages from listeners."""
    return [
        syslog.Served(stream.name, stream.source, stream.defaults)
        for stream in config.streams
        if isinstance(stream.source, syslog.SyslogSource)
    ]
