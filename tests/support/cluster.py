"""What a test changes in a running cluster and asks of it: topics, their settings, their rights, their leaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from bench.lab.kafka import Kafka

SECONDS = 30.0


def admin(kafka: Kafka) -> AdminClient:
    """Keep it in a variable until its futures are done: it takes them with it."""
    return AdminClient({"bootstrap.servers": kafka.internal})


def create_topics(
    kafka: Kafka,
    topics: Sequence[str],
    *,
    partitions: int = 1,
    replicas: Sequence[int] = (1,),
    configs: Mapping[str, str] | None = None,
) -> None:
    """Topics whose partitions are led by the first replica."""
    where = [list(replicas)] * partitions
    made = [NewTopic(topic, partitions, replica_assignment=where, config=dict(configs or {})) for topic in topics]
    client = admin(kafka)
    for done in client.create_topics(made, operation_timeout=SECONDS).values():
        done.result(SECONDS)


def delete_topic(kafka: Kafka, topic: str) -> None:
    client = admin(kafka)
    for done in client.delete_topics([topic], operation_timeout=SECONDS).values():
        done.result(SECONDS)


def add_partitions(kafka: Kafka, topic: str, count: int) -> None:
    """Raise a topic's number of partitions to `count`."""
    client = admin(kafka)
    for done in client.create_partitions([NewPartitions(topic, count)], operation_timeout=SECONDS).values():
        done.result(SECONDS)


def configure_topic(kafka: Kafka, topic: str, **settings: str | None) -> None:
    """Set a topic's settings, dots written as underscores; None takes one back."""
    entries = [
        ConfigEntry(
            key.replace("_", "."),
            value or "",
            incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
        )
        for key, value in settings.items()
    ]
    client = admin(kafka)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for done in client.incremental_alter_configs([resource]).values():
        done.result(SECONDS)


def configure_brokers(kafka: Kafka, change: str) -> None:
    """Change a setting of all brokers at once: "KEY=VALUE", or "KEY" to take it back."""
    how = "--add-config" if "=" in change else "--delete-config"
    where = ["--bootstrap-server", kafka.internal, "--entity-type", "brokers", "--entity-default"]
    kafka.run_tool("kafka.admin.ConfigCommand", [*where, "--alter", how, change])


def in_sync(kafka: Kafka, topics: Sequence[str]) -> int:
    """The smallest number of replicas of a partition that have all that was acknowledged."""
    found = admin(kafka).list_topics(timeout=SECONDS).topics
    return min(len(part.isrs) for topic in topics for part in found[topic].partitions.values())


def leaders(kafka: Kafka, topics: Sequence[str]) -> set[int]:
    """The brokers that lead the topics' partitions."""
    found = admin(kafka).list_topics(timeout=SECONDS).topics
    return {part.leader for topic in topics for part in found[topic].partitions.values()}
