"""What the Kafka sink finds in a topic's settings."""

from __future__ import annotations

import pytest

from logreceiver.sinks.kafka.topic_check import CREATED_WITH, Findings, check
from streams.errors import Code

EVERYTHING = 0xFFFF
READ, WRITE = 1 << 3, 1 << 4


def findings(
    topic: dict[str, str] | None = None,
    *,
    broker: dict[str, str] | None = None,
    replicas: int = 1,
    operations: int = EVERYTHING,
) -> Findings:
    return check(CREATED_WITH | (topic or {}), broker or {}, replication_factor=replicas, operations=operations)


def test_a_topic_that_we_created_is_usable() -> None:
    found = findings()
    assert (found.refusals, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("setting", "value", "replicas"),
    [("cleanup.policy", "compact", 1), ("cleanup.policy", "compact,delete", 1), ("min.insync.replicas", "2", 1)],
)
def test_a_topic_that_takes_no_batch_is_refused_with_the_setting_named(setting: str, value: str, replicas: int) -> None:
    found = findings({setting: value}, replicas=replicas)
    assert [text.split()[0] for text in found.refusals] == [setting]
    assert found.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("setting", "value"),
    [("compression.type", "gzip"), ("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")],
)
def test_a_setting_that_weakens_the_guarantee_is_a_warning_that_names_it(setting: str, value: str) -> None:
    found = findings({"min.insync.replicas": "2"} | {setting: value}, replicas=3)
    assert not found.refusals
    assert [text.split()[0] for text in found.warnings] == [setting]


def test_a_broker_that_forgets_producers_within_a_day_is_a_warning() -> None:
    assert findings(broker={"producer.id.expiration.ms": "86400000"}).warnings == ()
    [warning] = findings(broker={"producer.id.expiration.ms": "3600000"}).warnings
    assert "producer.id.expiration.ms is 3600000" in warning


@pytest.mark.parametrize(("operations", "lacking"), [(READ, "WRITE"), (WRITE, "READ")])
def test_a_missing_right_is_named(operations: int, lacking: str) -> None:
    found = findings(operations=operations)
    assert len(found.refusals) == 1
    assert f"lacks {lacking}" in found.refusals[0]
    assert found.code is Code.UNAUTHORISED


def test_both_rights_or_rights_that_a_broker_does_not_report_are_enough() -> None:
    assert not findings(operations=READ | WRITE).refusals
    assert not findings(operations=-(2**31)).refusals


def test_settings_that_cannot_be_read_are_a_warning_and_not_a_refusal() -> None:
    found = check({}, {}, replication_factor=3, operations=EVERYTHING)
    assert not found.refusals
    assert "DESCRIBE_CONFIGS" in found.warnings[0]


def test_the_broker_setting_the_time_is_noted_as_the_safer_choice() -> None:
    assert "LogAppendTime" in findings().notes[0]
    assert findings({"message.timestamp.type": "LogAppendTime"}, replicas=3).notes == ()


def test_a_single_replica_is_noted() -> None:
    (note,) = findings({"message.timestamp.type": "LogAppendTime"}).notes
    assert note.startswith("it has one replica")
