"""The Kafka sink: ready record batches passed through to Apache Kafka, acks=all, and never retried.

`produce` answers with what is known: *stored* and *duplicate* are the broker's answers; *refused* is certainly not
appended (the broker said so, or nothing was handed over); everything that was handed over and not answered is
*uncertain*. The forwarder decides what to do then: it asks (`ask`, by DescribeProducers, which knows the last stored
sequence exactly, even after a restart of the broker) before it sends anything.

A recognised repeat is distinguished from a fresh append by log_append_time ≠ −1, on CreateTime topics only; elsewhere
it counts as stored, and nothing is appended either way.

The sink also starts without Kafka: it keeps trying, `health` says so, and every call raises SinkUnavailable until a
broker answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import structlog

from logreceiver.sinks import Kind, Outcome, RunState, TopicInfo
from logreceiver.sinks.kafka import topic_check
from logreceiver.sinks.kafka.client import CONNECTION_ERRORS, Cluster, Topic
from logreceiver.sinks.kafka.coalesced import Coalesced
from logreceiver.sinks.kafka.errors import LEADER_NOT_AVAILABLE, NO_ERROR, NOT_LEADER, UNKNOWN_TOPIC, raise_for, refusal
from logreceiver.sinks.kafka.lanes import Item, Lanes
from logreceiver.sinks.kafka.options import connection_options, credentials
from logreceiver.sinks.kafka.produce import Produce, Row
from logreceiver.sinks.kafka.read import read_all
from logreceiver.sinks.kafka.requests import DescribeProducers
from logreceiver.sinks.settings import KafkaSink as Settings
from streams import tasks
from streams.errors import Code, SinkUnavailable

START_SECONDS = 5.0
RETRY_SECONDS = 1.0
KEEP_SECONDS = 30.0
"""How often metadata is refreshed while all is well."""
CHECK_SECONDS = 300.0
ANSWER_GRACE_SECONDS = 5.0
"""How long to wait beyond the request's own time limit before closing the broker's connection."""
PRODUCER_ID_SECONDS = 10.0
CREATION_SECONDS = 10.0

log = structlog.get_logger("logreceiver.kafka")

_COORDINATOR_STARTING = (14, 15, 16)
_UNEXPLAINED = frozenset({Code.INVALID_RECORD, Code.UNKNOWN, Code.UNAUTHORISED, Code.CLOCK, Code.TOO_LARGE})
_STALE = frozenset({Code.UNAVAILABLE, Code.TOPIC_MISSING, Code.TIMED_OUT})


class _Facts(NamedTuple):
    """What the last check of a topic found."""

    info: TopicInfo
    create_time: bool
    checked: float


class KafkaSink:
    """A sink on an Apache Kafka cluster."""

    name = "kafka"
    asking_is_cheap: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._facts: dict[str, _Facts] = {}
        self._findings: dict[str, topic_check.Findings] = {}
        """What was logged about each topic, so that only news is logged."""
        self._unfit: dict[str, str] = {}
        """Topics that cannot be used, for `health`."""
        self._lanes: dict[int, Lanes[Any]] = {}
        """By broker."""
        self._checks: Coalesced[_Facts] = Coalesced()
        self._questions: Coalesced[dict[int, RunState]] = Coalesced()
        self._cluster: Cluster | None = None
        self._credentials: tuple[object, ...] = ()
        """What the connections in use were made with."""
        self._keeper: asyncio.Task[None] | None = None
        """Refreshes the metadata in the background."""

    @property
    def cluster_id(self) -> str:
        return self._cluster.cluster_id if self._cluster is not None else ""

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect; wait a few seconds for a broker, then keep trying in the background."""
        self._credentials = credentials(self._settings)  # first: a file that changes meanwhile is then noticed
        self._cluster = Cluster(self._settings.brokers, connection_options(self._settings))
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._cluster.refresh()
        except (SinkUnavailable, TimeoutError) as error:
            self._log_unreachable(error)
        self._keeper = tasks.forever("metadata", self._keep)

    def renewal(self, settings: Settings) -> Callable[[], None]:
        """Check a section; calling the result takes its `live` fields. ConfigError for a file that cannot be used.

        Where credentials changed, every connection is replaced, each after the request that it carries.
        """
        known = credentials(settings)  # first, as in `start`
        options = connection_options(settings)

        def take() -> None:
            self._settings = settings
            if known != self._credentials and self._cluster is not None:
                self._credentials = known
                self._cluster.use(options)
                for lanes in self._lanes.values():
                    lanes.renew()
                log.info("connections to the brokers renewed")

        return take

    async def _keep(self) -> None:
        """Refresh the metadata from time to time, and soon after a failure."""
        cluster = self._need_cluster()
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            troubled = bool(cluster.problem)
            try:
                await cluster.refresh(max_age_seconds=KEEP_SECONDS)
            except SinkUnavailable as error:
                if not troubled:
                    self._log_unreachable(error)
            else:
                if troubled:
                    log.info("broker reachable", cluster_id=cluster.cluster_id)

    def _log_unreachable(self, error: Exception) -> None:
        log.warning("broker unreachable", brokers=list(self._settings.brokers), reason=str(error))

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*(lanes.close() for lanes in self._lanes.values()))
        self._lanes.clear()
        await self._checks.close()
        await self._questions.close()
        if self._cluster is not None:
            await self._cluster.close()

    def health(self) -> Mapping[str, str]:
        problem = self._cluster.problem if self._cluster is not None else "not started"
        return {**self._unfit, **({"kafka": problem} if problem else {})}

    def _need_cluster(self) -> Cluster:
        if self._cluster is None:
            raise SinkUnavailable(Code.UNAVAILABLE, "the sink was not started")
        return self._cluster

    # -- topics ------------------------------------------------------------------------------------------------

    async def topic(self, name: str) -> TopicInfo:
        return (await self._topic_facts(name, max_age_seconds=1.0)).info

    async def find(self, name: str) -> TopicInfo | None:
        topic = await self._need_cluster().topic(name, max_age_seconds=1.0)
        if topic.error_code == UNKNOWN_TOPIC and self._settings.create_topics:
            return None
        return await self.topic(name)

    async def _topic_facts(self, name: str, *, max_age_seconds: float) -> _Facts:
        """Checked facts; checked again when they are old, after an unexplained refusal, or if the topic id changes."""
        topic = await self._need_cluster().topic(name, max_age_seconds=max_age_seconds)
        facts = self._facts.get(name)
        now = time.monotonic()
        if (
            facts is None
            or facts.checked < now - CHECK_SECONDS
            or (facts.info.topic_id, facts.info.partition_count) != (topic.topic_id, len(topic.leaders))
        ):
            try:
                facts = await self._checks(name, lambda: self._check(name))
            except SinkUnavailable as error:
                if not self._need_cluster().problem:
                    self._unfit[f"topic {name}"] = str(error)
                raise
            self._unfit.pop(f"topic {name}", None)
        return facts

    async def _check(self, name: str) -> _Facts:
        cluster = self._need_cluster()
        topic = await cluster.topic(name, max_age_seconds=1.0)
        if topic.error_code == UNKNOWN_TOPIC and self._settings.create_topics:
            topic = await self._create(name)
        self._facts.pop(name, None)
        if topic.error_code != LEADER_NOT_AVAILABLE:
            raise_for(topic.error_code, f"topic {name}")
        node = await cluster.leader(name, min(topic.leaders, default=0))
        settings, broker = await cluster.describe_configs(
            node,
            [(2, name, list(topic_check.TOPIC_SETTINGS)), (4, str(node), list(topic_check.BROKER_SETTINGS))],
        )
        findings = topic_check.check(
            settings, broker, replication_factor=topic.replication_factor, operations=topic.operations
        )
        self._report(name, findings)
        max_bytes = int(settings.get("max.message.bytes", topic_check.DEFAULT_MAX_MESSAGE_BYTES))
        facts = _Facts(
            TopicInfo(name, topic.topic_id, len(topic.leaders), max_bytes),
            settings.get("message.timestamp.type") == "CreateTime",
            time.monotonic(),
        )
        self._facts[name] = facts
        return facts

    def _report(self, name: str, findings: topic_check.Findings) -> None:
        """Log new findings; raise SinkUnavailable for those that make the topic unusable."""
        if self._findings.get(name) != findings:
            self._findings[name] = findings
            for text in findings.notes:
                log.info("topic setting", topic=name, finding=text)
            for text in findings.warnings:
                log.warning("topic setting", topic=name, finding=text)
            for text in findings.refusals:
                log.error("topic unusable", topic=name, finding=text)
        if findings.refusals:
            raise SinkUnavailable(findings.code, f"topic {name}: {'; '.join(findings.refusals)}")

    async def _create(self, name: str) -> Topic:
        cluster, settings = self._need_cluster(), self._settings
        await cluster.create_topic(
            name, settings.partition_count, settings.replication_factor, topic_check.CREATED_WITH
        )
        log.info("topic created", topic=name, partitions=settings.partition_count)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CREATION_SECONDS):
                while True:
                    topic = await cluster.topic(name)
                    if topic.error_code == NO_ERROR and min(topic.leaders.values(), default=-1) >= 0:
                        return topic
                    await asyncio.sleep(0.05)
        raise SinkUnavailable(Code.UNAVAILABLE, f"topic {name} was created but has no leader yet")

    def read_all(self, topic: str) -> AsyncIterator[bytes]:
        """The values that are in a small topic now; never creates it. SinkUnavailable if it cannot be read."""
        return read_all(self._need_cluster(), topic)

    # -- producers ---------------------------------------------------------------------------------------------

    async def new_producer_id(self) -> int:
        cluster = self._need_cluster()
        deadline = asyncio.get_running_loop().time() + PRODUCER_ID_SECONDS
        while True:
            error_code, producer_id = await cluster.init_producer_id()
            if error_code not in _COORDINATOR_STARTING or asyncio.get_running_loop().time() > deadline:
                raise_for(error_code, "a producer id")
                return producer_id
            await asyncio.sleep(0.1)

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        """One query serves all callers that ask about a partition at the same time."""
        producers = await self._questions((topic, partition), lambda: self._producers(topic, partition))
        return producers.get(producer_id)

    async def _producers(self, topic: str, partition: int) -> dict[int, RunState]:
        cluster = self._need_cluster()
        request = DescribeProducers([(topic, [partition], {})], {})
        for attempt in range(2):
            response = await cluster.call(await cluster.leader(topic, partition), request)
            _, error_code, text, producers, _ = response.topics[0][1][0]
            if error_code == NOT_LEADER and attempt == 0:
                cluster.forget()
                continue
            if error_code != NO_ERROR:
                cluster.forget()
                raise_for(error_code, f"{topic}-{partition}: {text or 'DescribeProducers'}")
            return {row[0]: RunState(row[1], row[2]) for row in producers}
        raise AssertionError("unreachable")

    # -- batches -----------------------------------------------------------------------------------------------

    async def produce(self, topic: str, partition: int, batch: memoryview) -> Outcome:
        try:
            await self._topic_facts(topic, max_age_seconds=CHECK_SECONDS)
            node = await self._need_cluster().leader(topic, partition)
        except SinkUnavailable as error:
            return Outcome.refused(error.code, str(error))
        outcome = await self._lanes_to(node).submit((topic, partition), batch)
        if outcome.code in _STALE:
            self._need_cluster().forget()
        if outcome.code in _UNEXPLAINED:
            self._facts.pop(topic, None)
        return outcome

    def _lanes_to(self, node: int) -> Lanes[Any]:
        lanes = self._lanes.get(node)
        if lanes is None:
            limit = self._settings.produce_timeout_seconds

            async def connect() -> Any:
                cluster = self._need_cluster()
                if node not in cluster.nodes:
                    raise SinkUnavailable(Code.UNAVAILABLE, f"broker {node} is not known")
                return await cluster.connect(cluster.nodes[node], seconds=limit + 2 * ANSWER_GRACE_SECONDS)

            lanes = self._lanes[node] = Lanes(connect, self._send, limit_seconds=limit)
        return lanes

    async def _send(self, connection: Any, items: Sequence[Item], seconds: float) -> list[Outcome]:
        """One Produce request; an outcome for each item, in order."""
        batches: dict[str, list[tuple[int, memoryview]]] = {}
        for item in items:
            batches.setdefault(item.partition[0], []).append((item.partition[1], item.batch))
        try:
            answer = connection.send(Produce(batches, timeout_ms=int(seconds * 1000)))
        except CONNECTION_ERRORS as error:  # before anything was written
            return [Outcome.refused(Code.UNAVAILABLE, str(error))] * len(items)
        loop = asyncio.get_running_loop()
        limit = loop.call_later(seconds + ANSWER_GRACE_SECONDS, connection.close)
        try:
            rows = await answer
        except CONNECTION_ERRORS as error:
            connection.close()
            if loop.time() < limit.when():
                return [Outcome.uncertain(Code.UNAVAILABLE, str(error))] * len(items)
            text = f"no answer within {seconds + ANSWER_GRACE_SECONDS:.0f} s"
            return [Outcome.uncertain(Code.TIMED_OUT, text)] * len(items)
        finally:
            limit.cancel()
        return [self._outcome(item, rows.get(item.partition)) for item in items]

    def _outcome(self, item: Item, row: Row | None) -> Outcome:
        if row is None:
            return Outcome.uncertain(Code.UNKNOWN, "the broker's answer names another partition")
        if row.error_code != 0:
            return refusal(row.error_code, row.text)
        facts = self._facts.get(item.partition[0])
        repeated = facts is not None and facts.create_time and row.append_time_ms != -1
        return Outcome(Kind.DUPLICATE if repeated else Kind.STORED, row.offset)
