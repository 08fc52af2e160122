"""The one door to aiokafka's client: connections to brokers, cluster metadata, and the few requests a sink needs.

aiokafka's producer can only send batches that it built itself, so this module uses the layer below it: its connections
(framing, correlation, TLS, SASL) and its protocol types. Both are internals, hence the pinned version. Requests that
it lacks or knows only in older versions are spelled out here. Metadata is requested in version 12, which carries the
cluster id, topic ids and the rights of this client.

A `Cluster` knows each partition's leader, and keeps one *control* connection per broker for everything but Produce, so
that a question never waits for a stuck partition. Every foreign error becomes SinkUnavailable here, or, once a Produce
request was handed over, an uncertain outcome in `kafka.py`.
"""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, Generic, NamedTuple, TypeVar

from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from streams.addresses import split_address
from streams.errors import Code, LinkError, SinkUnavailable

CONTROL_SECONDS = 5.0
"""Time limit for a connection, and for an answer to anything but Produce."""

CONNECTION_ERRORS = (OSError, KafkaError, TimeoutError, LinkError, EOFError, NotImplementedError)
"""NotImplementedError: aiokafka and the broker share no version of a request."""

NO_ERROR, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_LEADER, TOPIC_NOT_AUTHORISED = 0, 3, 5, 6, 29
TOPIC_ALREADY_EXISTS = 36
_TAGS = ("tags", TaggedFields)


# -- requests --------------------------------------------------------------------------------------------------


class OneVersion:
    """A request in the one version that is spelled out here; replaces aiokafka's choice of version."""

    API_KEY: int
    API_VERSION: int

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        low, high = versions.get(self.API_KEY, (0, -1))
        if not low <= self.API_VERSION <= high:
            raise IncompatibleBrokerVersion(
                f"the broker lacks version {self.API_VERSION} of request {self.API_KEY}; use Apache Kafka 2.8 or newer"
            )
        return self


class _Uuid:
    """16 bytes, shown as Kafka's tools show them."""

    @staticmethod
    def encode(value: bytes) -> bytes:
        return value

    @staticmethod
    def decode(data: BytesIO) -> str:
        return urlsafe_b64encode(data.read(16)).decode().rstrip("=")

    @staticmethod
    def repr(value: object) -> str:
        return repr(value)


_NO_UUID = bytes(16)


def _array(*fields: tuple[str, Any]) -> Any:
    return CompactArray(*fields, _TAGS)


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 3, 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", _array(("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()))),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            _array(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    _array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        _TAGS,
    )


class _Metadata(OneVersion, RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, FLEXIBLE_VERSION, RESPONSE_TYPE = 3, 12, True, _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString()), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _DescribeProducersResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 61, 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            _array(
                ("name", CompactString()),
                (
                    "partitions",
                    _array(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString()),
                        (
                            "producers",
                            _array(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("transaction_start", Int64),
                            ),
                        ),
                    ),
                ),
            ),
        ),
        _TAGS,
    )


class DescribeProducers(OneVersion, RequestStruct):  # type: ignore[misc]
    """KIP-664: what a partition's leader knows about its producers."""

    API_KEY, API_VERSION, FLEXIBLE_VERSION, RESPONSE_TYPE = 61, 0, True, _DescribeProducersResponse
    SCHEMA = Schema(("topics", _array(("name", CompactString()), ("partitions", CompactArray(Int32)))), _TAGS)


# -- the cluster -----------------------------------------------------------------------------------------------


class Topic(NamedTuple):
    """A topic in the newest metadata. `leaders` by partition, −1 for none; `operations` has a bit per right."""

    error_code: int
    topic_id: str
    leaders: Mapping[int, int]
    replication_factor: int
    operations: int


_NO_TOPIC = Topic(UNKNOWN_TOPIC, "", {}, 0, 0)
T = TypeVar("T")


class Coalesced(Generic[T]):
    """Callers share a call that has not begun; those that arrive while one is under way share the next.

    So an answer is never older than the question.
    """

    def __init__(self) -> None:
        self._begun: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}

    async def __call__(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, call))
            task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        task = self._next[key]
        if (before := self._begun.get(key)) is not None:
            await asyncio.wait([before])
        self._begun[key] = task
        del self._next[key]
        try:
            return await call()
        finally:
            if self._begun.get(key) is task:
                del self._begun[key]

    async def close(self) -> None:
        tasks = [*self._begun.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Mark the error as seen: if all callers were cancelled, asyncio would log it as never retrieved."""
    if not task.cancelled():
        task.exception()


class Cluster:
    """Brokers, leaders and control connections. `options` go to every connection (TLS, SASL)."""

    def __init__(self, bootstrap: Sequence[str], options: Mapping[str, Any]) -> None:
        self._bootstrap = [split_address(address) for address in bootstrap]
        self._options = dict(options)
        self._control: dict[tuple[str, int], AIOKafkaConnection] = {}
        self._coalesced: Coalesced[None] = Coalesced()
        self._connecting: Coalesced[AIOKafkaConnection] = Coalesced()
        self._names: set[str] = set()
        self._refreshed = -1.0
        self.cluster_id = ""
        self.nodes: dict[int, tuple[str, int]] = {}
        self.topics: dict[str, Topic] = {}
        self.problem = "no broker was reached yet"

    async def close(self) -> None:
        await self._coalesced.close()
        await self._connecting.close()
        closing = [connection.close(reason=CloseReason.SHUTDOWN) for connection in self._control.values()]
        waits = [future for future in closing if future is not None]
        if waits:
            await asyncio.wait(waits, timeout=CONTROL_SECONDS)

    async def connect(self, address: tuple[str, int], *, seconds: float = CONTROL_SECONDS) -> AIOKafkaConnection:
        """A new connection; `seconds` is its time limit for one answer. SinkUnavailable if it fails."""
        host, port = address
        try:
            async with asyncio.timeout(CONTROL_SECONDS):
                return await create_conn(
                    host,
                    port,
                    client_id="logreceiver",
                    request_timeout_ms=int(seconds * 1000),
                    max_idle_ms=540_000,
                    **self._options,
                )
        except CONNECTION_ERRORS as error:
            self.forget()
            raise SinkUnavailable(Code.UNAVAILABLE, f"no connection to {host}:{port}: {_words(error)}") from error

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
        request = _Metadata([(_NO_UUID, name, {}) for name in sorted(self._names)], False, True, {})
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
        self._refreshed = time.monotonic() if asked == self._names else -1.0

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
                Code.UNAVAILABLE, f"no answer from {address[0]}:{address[1]}: {_words(error)}"
            ) from error

    async def _connect_control(self, address: tuple[str, int]) -> AIOKafkaConnection:
        connection = self._control.get(address)
        if connection is not None and connection.connected():
            return connection
        if connection is not None:
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
            code = Code.UNAUTHORISED if error_code in (29, 31) else Code.TOPIC_MISSING
            raise SinkUnavailable(code, f"topic {name} cannot be created: {text or f'error {error_code}'}")
        self.forget()


def _topic(row: Sequence[Any]) -> Topic:
    error_code, _, topic_id, _, partitions, operations, _ = row
    replicas = max((len(partition[4]) for partition in partitions), default=0)
    return Topic(error_code, topic_id, {one[1]: one[2] for one in partitions}, replicas, operations)


def raise_for(error_code: int, what: str) -> None:
    """SinkUnavailable for an error code of a request that is not Produce."""
    if error_code == NO_ERROR:
        return
    code = {
        UNKNOWN_TOPIC: Code.TOPIC_MISSING,
        17: Code.TOPIC_MISSING,
        TOPIC_NOT_AUTHORISED: Code.UNAUTHORISED,
        31: Code.UNAUTHORISED,
    }.get(error_code, Code.UNAVAILABLE)
    raise SinkUnavailable(code, f"{what}: {code.sentence} (Kafka error {error_code})")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
