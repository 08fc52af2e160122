"""The one door to aiokafka's client: connections to brokers, cluster metadata, and the few requests a sink needs.

aiokafka's producer can only send batches that it built itself, so this module uses the layer below it: its connections
(framing, correlation, TLS, SASL) and its protocol types. Both are internals, hence the pinned version. Requests that
it lacks or knows only in older versions are in kafka_requests.py.

A `Cluster` knows each partition's leader, and keeps one *control* connection per broker for everything but Produce, so
that a question never waits for a stuck partition. Every foreign error becomes SinkUnavailable here, or, once a Produce
request was handed over, an uncertain outcome in `kafka.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from logreceiver.sinks import SinkWitness
from logreceiver.sinks.kafka.coalesced import Coalesced
from logreceiver.sinks.kafka.connection import Connection
from logreceiver.sinks.kafka.errors import (
    LEADER_NOT_AVAILABLE,
    NO_ERROR,
    TOPIC_ALREADY_EXISTS,
    UNAUTHORISED,
    UNKNOWN_TOPIC,
    raise_for,
)
from logreceiver.sinks.kafka.requests import NO_UUID, Metadata
from streams.addresses import split_address
from streams.errors import Code, LinkError, SinkUnavailable

CONTROL_SECONDS = 5.0
"""Time limit for a connection, and for an answer to anything but Produce."""

CONNECTION_ERRORS = (OSError, KafkaError, TimeoutError, LinkError, EOFError, NotImplementedError)
"""NotImplementedError: aiokafka and the broker share no version of a request."""


class Topic(NamedTuple):
    """A topic in the newest metadata. `leaders` by partition, −1 for none; `operations` has a bit per right.

    `in_sync` by partition: how many replicas have all that was acknowledged.
    """

    error_code: int
    topic_id: str
    leaders: Mapping[int, int]
    in_sync: Mapping[int, int]
    replication_factor: int
    operations: int


_NO_TOPIC = Topic(UNKNOWN_TOPIC, "", {}, {}, 0, 0)


class Cluster:
    """Brokers, leaders and control connections. `options` go to every connection (TLS, SASL)."""

    def __init__(
        self, bootstrap: Sequence[str], options: Mapping[str, Any], witness: SinkWitness | None = None
    ) -> None:
        self._witness = witness
        self._bootstrap = [split_address(address) for address in bootstrap]
        self._options = dict(options)
        self._control: dict[tuple[str, int], Connection] = {}
        self._outdated: set[Connection] = set()
        """Connections with other options, which may still carry a question."""
        self._coalesced: Coalesced[None] = Coalesced()
        self._connecting: Coalesced[Connection] = Coalesced()
        self._names: set[str] = set()
        """Topics in use: metadata of these is requested."""
        self._refreshed = -1.0
        """When the metadata came (monotonic seconds); negative if it has to be requested again."""
        self.cluster_id = ""
        self.nodes: dict[int, tuple[str, int]] = {}
        self.topics: dict[str, Topic] = {}
        self.problem = "no broker was reached yet"
        """Why the last refresh failed; empty if it worked."""

    async def close(self) -> None:
        await self._coalesced.close()
        await self._connecting.close()
        every = [*self._control.values(), *self._outdated]
        self._outdated.clear()
        closing = [connection.close(reason=CloseReason.SHUTDOWN) for connection in every]
        waits = [future for future in closing if future is not None]
        if waits:
            await asyncio.wait(waits, timeout=CONTROL_SECONDS)

    def use(self, options: Mapping[str, Any]) -> None:
        """Make connections with other options from now on; those that are there serve what is under way, then close."""
        self._options = dict(options)
        for connection in self._control.values():
            self._retire(connection)
        self._control.clear()

    def _retire(self, connection: Connection) -> None:
        """Close it once what it carries is answered."""
        self._outdated.add(connection)
        asyncio.get_running_loop().call_later(2 * CONTROL_SECONDS, self._close_outdated, connection)

    def _close_outdated(self, connection: Connection) -> None:
        if connection in self._outdated:
            self._outdated.discard(connection)
            connection.close()

    async def connect(self, address: tuple[str, int], *, seconds: float = CONTROL_SECONDS) -> Connection:
        """A new connection; `seconds` is its time limit for one answer. SinkUnavailable if it fails."""
        host, port = address
        connection = Connection(
            host,
            port,
            client_id="logreceiver",
            request_timeout_ms=int(seconds * 1000),
            max_idle_ms=540_000,
            **self._options,
        )
        try:
            async with asyncio.timeout(CONTROL_SECONDS):
                await connection.connect()
        except CONNECTION_ERRORS as error:
            self.forget()
            why = self._describe(error)
            raise SinkUnavailable(Code.UNAVAILABLE, f"no connection to {host}:{port}: {why}") from error
        if self._witness is not None:
            connection.count(self._witness)
        return connection

    # -- metadata ----------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Metadata may be stale: refresh it before the next use."""
        self._refreshed = -1.0

    async def refresh(self, *, max_age_seconds: float = 0.0) -> None:
        """Ask any broker for the metadata of all topics in use, unless it is recent enough."""
        if self._refreshed < 0 or time.monotonic() - self._refreshed > max_age_seconds:
            await self._coalesced("metadata", self._refresh)

    async def topic(self, name: str, *, max_age_seconds: float = 0.0) -> Topic:
        """A topic's metadata; its `error_code` may be UNKNOWN_TOPIC or another."""
        if name not in self.topics:
            self._names.add(name)
            self.forget()
        await self.refresh(max_age_seconds=max_age_seconds)
        topic = self.topics.get(name, _NO_TOPIC)
        if topic.error_code not in (NO_ERROR, LEADER_NOT_AVAILABLE):
            self._names.discard(name)  # requested again when it is needed again
            self.topics.pop(name, None)
        return topic

    async def leader(self, name: str, partition: int) -> int:
        """The node that leads a partition. SinkUnavailable if there is none."""
        topic = await self.topic(name, max_age_seconds=300.0)
        if topic.leaders.get(partition, -1) < 0:
            topic = await self.topic(name)
        raise_for(topic.error_code if topic.error_code != LEADER_NOT_AVAILABLE else NO_ERROR, f"topic {name}")
        if partition not in topic.leaders:
            raise SinkUnavailable(Code.TOPIC_MISSING, f"topic {name} has no partition {partition}")
        if topic.leaders[partition] < 0:
            raise SinkUnavailable(Code.UNAVAILABLE, f"{name}-{partition} has no leader")
        return topic.leaders[partition]

    async def _refresh(self) -> None:
        request = Metadata([(NO_UUID, name, {}) for name in sorted(self._names)], False, True, {})
        asked = set(self._names)
        try:
            response = await self.call_any(request)
        except SinkUnavailable as error:
            self.problem = str(error)
            raise
        self.nodes = {row[0]: (row[1], row[2]) for row in response.brokers}
        self.cluster_id = response.cluster_id or ""
        self.topics = {row[1]: _topic(row) for row in response.topics}
        self.problem = ""
        self._refreshed = time.monotonic() if asked == self._names else -1.0  # not for topics added meanwhile

    # -- control requests --------------------------------------------------------------------------------------

    async def call_any(self, request: Any) -> Any:
        """The first answer of any broker: tries connected ones, then known, then configured ones."""
        addresses = dict.fromkeys([*self.nodes.values(), *self._bootstrap])
        failures = []
        for address in sorted(addresses, key=lambda one: one not in self._control):
            try:
                return await self._call(address, request)
            except SinkUnavailable as error:
                failures.append(str(error))
        raise SinkUnavailable(Code.UNAVAILABLE, "; ".join(dict.fromkeys(failures)))

    async def call(self, node: int, request: Any) -> Any:
        """The answer of one broker. SinkUnavailable if there is none."""
        if node not in self.nodes:
            self.forget()
            raise SinkUnavailable(Code.UNAVAILABLE, f"broker {node} is not known")
        return await self._call(self.nodes[node], request)

    async def _call(self, address: tuple[str, int], request: Any) -> Any:
        connection = self._control.get(address)
        if connection is None or not connection.connected():
            connection = await self._connecting(address, lambda: self._connect_control(address))
        try:
            return await connection.send(request)
        except CONNECTION_ERRORS as error:
            self._control.pop(address, None)
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            self.forget()
            raise SinkUnavailable(
                Code.UNAVAILABLE, f"no answer from {address[0]}:{address[1]}: {self._describe(error)}"
            ) from error

    def _describe(self, error: BaseException) -> str:
        """With what TLS has to say: aiokafka only knows that the connection was closed."""
        text = str(error) or type(error).__name__
        context = self._options.get("ssl_context")
        failure = context.take_failure() if context is not None else ""
        return f"{text}; TLS: {failure}" if failure and failure not in text else text

    async def _connect_control(self, address: tuple[str, int]) -> Connection:
        connection = self._control.get(address)
        if connection is not None and connection.connected():
            return connection
        if connection is not None and connection.is_used_up:
            self._retire(connection)
        elif connection is not None:
            connection.close()  # the peer has ended it, but it is not closed here yet
        connection = self._control[address] = await self.connect(address)
        return connection

    async def describe_configs(
        self, node: int, resources: Iterable[tuple[int, str, list[str]]]
    ) -> list[dict[str, str]]:
        """Settings of resources (type 2: topic, 4: broker), in order; empty where this client may not read them."""
        response = await self.call(node, DescribeConfigsRequest(list(resources)))
        return [
            {entry[0]: entry[1] for entry in row[4] or ()} if row[0] == NO_ERROR else {} for row in response.resources
        ]

    async def init_producer_id(self) -> tuple[int, int]:
        """Error code and producer id."""
        response = await self.call_any(InitProducerIdRequest(None, 60_000))
        return response.error_code, response.producer_id

    async def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        """Create a topic; no error if it exists already."""
        row: tuple[Any, ...] = (name, partitions, replicas, [], list(configs.items()))
        response = await self.call_any(CreateTopicsRequest([row], int(CONTROL_SECONDS * 900), False))
        _, error_code, text = response.topic_errors[0]
        if error_code not in (NO_ERROR, TOPIC_ALREADY_EXISTS):
            code = Code.UNAUTHORISED if error_code in UNAUTHORISED else Code.TOPIC_MISSING
            raise SinkUnavailable(code, f"topic {name} cannot be created: {text or f'error {error_code}'}")
        self.forget()


def _topic(row: Sequence[Any]) -> Topic:
    error_code, _, topic_id, _, partitions, operations, _ = row
    replicas = max((len(partition[4]) for partition in partitions), default=0)
    leaders, in_sync = {one[1]: one[2] for one in partitions}, {one[1]: len(one[5]) for one in partitions}
    return Topic(error_code, topic_id, leaders, in_sync, replicas, operations)
