"""Topics of a real Kafka, made and changed by librdkafka's admin client: far quicker than Kafka's own tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from bench.kafka import Kafka

PATIENCE_SECONDS = 20.0


def _done(kafka: Kafka, ask: Callable[[AdminClient], Mapping[Any, Future[Any]]]) -> None:
    """Ask, and wait for all answers; raises KafkaException."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for answer in ask(admin).values():
        answer.result()


def create(
    kafka: Kafka, names: Iterable[str], *, replicas: Sequence[int] = (1,), settings: Mapping[str, str] | None = None
) -> None:
    """With one partition each; the first replica leads."""
    topics = [NewTopic(name, 1, replica_assignment=[list(replicas)], config=dict(settings or {})) for name in names]
    _done(kafka, lambda admin: admin.create_topics(topics))


def alter(kafka: Kafka, name: str, setting: str, value: str) -> None:
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    _done(kafka, lambda admin: admin.incremental_alter_configs([resource]))


def make_anew(kafka: Kafka, name: str) -> None:
    """Delete a topic and create one of the same name."""
    _done(kafka, lambda admin: admin.delete_topics([name]))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return create(kafka, [name])
        except KafkaException:  # deletion takes a moment behind its answer
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
