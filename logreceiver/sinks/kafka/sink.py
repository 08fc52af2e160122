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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

import structlog

from logreceiver.sinks import Held, Kind, Outcome, RunState, SinkWitness, TopicInfo
from logreceiver.sinks.kafka.client import CONNECTION_ERRORS, Cluster
from logreceiver.sinks.kafka.coalesced import Coalesced
from logreceiver.sinks.kafka.errors import NO_ERROR, NOT_LEADER, UNKNOWN_TOPIC, raise_for, refusal
from logreceiver.sinks.kafka.lanes import Item, Lanes
from logreceiver.sinks.kafka.options import connection_options, credentials
from logreceiver.sinks.kafka.produce import Produce, Row
from logreceiver.sinks.kafka.read import read_all
from logreceiver.sinks.kafka.requests import DescribeProducers
from logreceiver.sinks.kafka.topics import CHECK_SECONDS, Topics
from logreceiver.sinks.settings import KafkaSink as Settings
from streams import tasks
from streams.config.sections import SinkTls
from streams.errors import Code, SinkUnavailable

START_SECONDS = 5.0
RETRY_SECONDS = 1.0
KEEP_SECONDS = 30.0
"""How often metadata is refreshed while all is well."""
ANSWER_GRACE_SECONDS = 5.0
"""How long to wait beyond the request's own time limit before closing the broker's connection."""
PRODUCER_ID_SECONDS = 10.0

log = structlog.get_logger("logreceiver.kafka")

_COORDINATOR_STARTING = (14, 15, 16)
_UNEXPLAINED = frozenset({Code.INVALID_RECORD, Code.UNKNOWN, Code.UNAUTHORISED, Code.CLOCK, Code.TOO_LARGE})
_STALE = frozenset({Code.UNAVAILABLE, Code.TOPIC_MISSING, Code.TIMED_OUT})


class KafkaSink:
    """A sink on an Apache Kafka cluster."""

    name = "kafka"
    asking_is_cheap: ClassVar[bool] = True

    def __init__(self, settings: Settings, witness: SinkWitness | None = None) -> None:
        self._settings = settings
        self._witness = witness
        self._topics: Topics | None = None
        self._lanes: dict[int, Lanes[Any]] = {}
        """By broker."""
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
        options = connection_options(self._settings)
        self._cluster = Cluster(self._settings.brokers, options, self._witness)
        self._show(options)
        self._topics = Topics(self._cluster, lambda: self._settings)
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
                self._show(options)
                for lanes in self._lanes.values():
                    lanes.renew()
                log.info("connections to the brokers renewed")

        return take

    def _show(self, options: Mapping[str, Any]) -> None:
        """Have the connections that are made with these options counted, and the certificate's end shown."""
        witness, context = self._witness, options.get("ssl_context")
        if witness is None:
            return
        witness.forget_certificates([SinkTls.section])
        if context is not None:
            context.witness = witness
            if self._settings.tls is not None and self._settings.tls.own is not None:
                witness.own_certificate(context.party.expires, user=SinkTls.section)

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
        if self._topics is not None:
            await self._topics.close()
        await self._questions.close()
        if self._cluster is not None:
            await self._cluster.close()

    def health(self) -> Mapping[str, str]:
        problem = self._cluster.problem if self._cluster is not None else "not started"
        unfit = self._topics.unfit if self._topics is not None else {}
        return {**unfit, **({"kafka": problem} if problem else {})}

    def _need_cluster(self) -> Cluster:
        if self._cluster is None:
            raise SinkUnavailable(Code.UNAVAILABLE, "the sink was not started")
        return self._cluster

    def _need_topics(self) -> Topics:
        self._need_cluster()
        assert self._topics is not None
        return self._topics

    # -- topics ------------------------------------------------------------------------------------------------

    async def topic(self, name: str) -> TopicInfo:
        return (await self._need_topics().facts(name, max_age_seconds=1.0)).info

    async def find(self, name: str) -> TopicInfo | None:
        topic = await self._need_cluster().topic(name, max_age_seconds=1.0)
        if topic.error_code == UNKNOWN_TOPIC and self._settings.create_topics:
            return None
        return await self.topic(name)

    def warnings(self, topic: str) -> Sequence[str]:
        """What weakens or slows down a topic that was found."""
        return self._need_topics().warnings(topic)

    def read_all(self, topic: str) -> AsyncIterator[bytes]:
        """The values that are in a small topic now; never creates it. SinkUnavailable if it cannot be read."""
        return read_all(self._need_cluster(), topic)

    async def held(self, topic: str, partition: int) -> Held:
        """Everything: what a broker keeps, it answers for."""
        return Held()

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
            leader = await cluster.leader(topic, partition)
            self._need_topics().check_in_sync(topic, partition)
            response = await cluster.call(leader, request)
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
            await self._need_topics().facts(topic, max_age_seconds=CHECK_SECONDS)
            node = await self._need_cluster().leader(topic, partition)
        except SinkUnavailable as error:
            return Outcome.refused(error.code, str(error))
        outcome = await self._lanes_to(node).submit((topic, partition), batch)
        if outcome.code in _STALE:
            self._need_cluster().forget()
        if outcome.code in _UNEXPLAINED:
            self._need_topics().forget(topic)
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
        connection.carries(sum(len(item.batch) for item in items))
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
        repeated = self._need_topics().has_create_time(item.partition[0]) and row.append_time_ms != -1
        return Outcome(Kind.DUPLICATE if repeated else Kind.STORED, row.offset)
