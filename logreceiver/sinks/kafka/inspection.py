"""Looks at a Kafka cluster as a receiver would use it: each broker, its right to producer ids, each topic.

Creates nothing. A producer id is used up: a broker has 2^63 of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from logreceiver.sinks.findings import Finding
from logreceiver.sinks.kafka.client import Cluster
from logreceiver.sinks.kafka.options import connection_options
from logreceiver.sinks.kafka.sink import KafkaSink
from logreceiver.sinks.settings import KafkaSink as Settings
from streams.addresses import join_address
from streams.errors import SinkUnavailable


async def of_kafka(settings: Settings, topics: Sequence[str]) -> AsyncIterator[Finding]:
    """One finding for each broker that is configured or that these name, for producer ids, and for each topic."""
    reached = ""
    named: dict[str, int] = {}
    for broker in settings.brokers:
        cluster = Cluster([broker], connection_options(settings))
        try:
            await cluster.refresh()
        except SinkUnavailable as error:
            yield Finding(f"broker {broker}: {error}", True)
        else:
            reached = reached or broker
            named |= {join_address(*address): node for node, address in cluster.nodes.items()}
            yield Finding(f"broker {broker}: answers for cluster {cluster.cluster_id}")
        finally:
            await cluster.close()
    if not reached:
        return
    for address, node in named.items():
        if address not in settings.brokers and (fault := await _unreachable(settings, address)):
            yield Finding(f"broker {node} is advertised as {address}: {fault}", True)
    sink = KafkaSink(msgspec.structs.replace(settings, brokers=(reached,)))
    await sink.start()
    try:
        async for finding in _rights(sink, topics):
            yield finding
    finally:
        await sink.close()


async def _unreachable(settings: Settings, address: str) -> str:
    """Why a broker does not answer at the address that others name for it; empty if it does."""
    cluster = Cluster([address], connection_options(settings))
    try:
        await cluster.refresh()
    except SinkUnavailable as error:
        return str(error)
    finally:
        await cluster.close()
    return ""


async def _rights(sink: KafkaSink, topics: Sequence[str]) -> AsyncIterator[Finding]:
    try:
        await sink.new_producer_id()
    except SinkUnavailable as error:
        yield Finding(f"producer ids: {error}", True)
    else:
        yield Finding("producer ids: granted")
    for name in topics:
        try:
            topic = await sink.find(name)
        except SinkUnavailable as error:
            yield Finding(str(error) if name in str(error) else f"topic {name}: {error}", True)
            continue
        if topic is None:
            yield Finding(f"topic {name}: is not there, and will be created (create_topics)")
            continue
        many = "partition" if topic.partition_count == 1 else "partitions"
        yield Finding(f"topic {name}: {topic.partition_count} {many}, batches up to {topic.max_message_bytes} bytes")
        for warning in sink.warnings(name):
            yield Finding(f"topic {name}: {warning}")
