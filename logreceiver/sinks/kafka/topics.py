"""What is known of each topic: checked facts, findings that are logged once, and whether it can be used."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from logreceiver.sinks import TopicInfo
from logreceiver.sinks.kafka import topic_check
from logreceiver.sinks.kafka.client import Cluster, Topic
from logreceiver.sinks.kafka.coalesced import Coalesced
from logreceiver.sinks.kafka.errors import LEADER_NOT_AVAILABLE, NO_ERROR, UNKNOWN_TOPIC, raise_for
from logreceiver.sinks.settings import KafkaSink as Settings
from streams.errors import Code, SinkUnavailable

CHECK_SECONDS = 300.0
CREATION_SECONDS = 10.0

log = structlog.get_logger("logreceiver.kafka")


class Facts(NamedTuple):
    """What the last check of a topic found."""

    info: TopicInfo
    create_time: bool
    min_in_sync: int
    checked: float


class Topics:
    """The topics of one cluster. `settings` are those of now, which say whether topics are made."""

    def __init__(self, cluster: Cluster, settings: Callable[[], Settings]) -> None:
        self.unfit: dict[str, str] = {}
        """Topics that cannot be used, for `health`."""
        self._cluster, self._settings = cluster, settings
        self._facts: dict[str, Facts] = {}
        self._findings: dict[str, topic_check.Findings] = {}
        """What was logged about each topic, so that only news is logged."""
        self._checks: Coalesced[Facts] = Coalesced()

    async def close(self) -> None:
        await self._checks.close()

    def forget(self, name: str) -> None:
        """Check a topic again before its next use."""
        self._facts.pop(name, None)

    def warnings(self, name: str) -> Sequence[str]:
        """Of the last check of a topic."""
        found = self._findings.get(name)
        return () if found is None else found.warnings

    def has_create_time(self, name: str) -> bool:
        """True if the topic is known to keep the timestamps of its batches."""
        facts = self._facts.get(name)
        return facts is not None and facts.create_time

    async def facts(self, name: str, *, max_age_seconds: float) -> Facts:
        """Checked facts; checked again when they are old, after an unexplained refusal, or if the topic id changes."""
        topic = await self._cluster.topic(name, max_age_seconds=max_age_seconds)
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
                if not self._cluster.problem:
                    self.unfit[f"topic {name}"] = str(error)
                raise
            self.unfit.pop(f"topic {name}", None)
        return facts

    def check_in_sync(self, name: str, partition: int) -> None:
        """SinkUnavailable while the leader would refuse every batch, though it answers questions."""
        topic, facts = self._cluster.topics.get(name), self._facts.get(name)
        if topic is None or facts is None or topic.in_sync.get(partition, 0) >= facts.min_in_sync:
            return
        self._cluster.forget()
        few = f"{topic.in_sync.get(partition, 0)} replicas in sync, fewer than min.insync.replicas"
        raise SinkUnavailable(Code.UNAVAILABLE, f"{name}-{partition} has {few} ({facts.min_in_sync})")

    async def _check(self, name: str) -> Facts:
        cluster = self._cluster
        topic = await cluster.topic(name, max_age_seconds=1.0)
        if topic.error_code == UNKNOWN_TOPIC and self._settings().create_topics:
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
        facts = Facts(
            TopicInfo(name, topic.topic_id, len(topic.leaders), max_bytes),
            settings.get("message.timestamp.type") == "CreateTime",
            int(settings.get("min.insync.replicas", 1)),
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
        cluster, settings = self._cluster, self._settings()
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
