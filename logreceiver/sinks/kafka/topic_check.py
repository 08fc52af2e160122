"""Is a Kafka topic fit for exactly-once batches? Decided from its settings; no I/O, no Kafka.

A *refusal* is a setting under which batches cannot be stored, or not safely; a *warning* is one that costs something
or weakens the guarantee. Both name the setting that the operator has to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from streams.errors import Code

TOPIC_SETTINGS = (
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "unclean.leader.election.enable",
)
BROKER_SETTINGS = ("producer.id.expiration.ms",)
CREATED_WITH = {"cleanup.policy": "delete", "compression.type": "producer", "message.timestamp.type": "CreateTime"}
"""Settings of a topic that the receiver creates. Records keep the time of reading (stamping holds it near the
receiver's clock, so that producers do not expire early), and the broker's answer distinguishes a repeat from a fresh
append."""

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
DAY_MS = 86_400_000
_READ, _WRITE = 3, 4
_OPERATIONS_UNKNOWN = -(2**31)


class Findings(NamedTuple):
    """What is wrong with a topic, or worth knowing; `code` is the wire code of the refusals."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    code: Code = Code.UNAVAILABLE


def check(topic: Mapping[str, str], broker: Mapping[str, str], *, replication_factor: int, operations: int) -> Findings:
    """Check a topic's settings, those of its leader, and this client's rights."""
    rights = _missing_rights(operations)
    refusals, warnings = _durability(topic, replication_factor)
    if "compact" in topic.get("cleanup.policy", "delete"):
        refusals.append(
            "cleanup.policy is compact: Kafka refuses a batch with a record that has no key, and deletes all but the "
            "last record of each key; set it to delete"
        )
    if topic.get("compression.type", "producer") != "producer":
        warnings.append(
            f"compression.type is {topic['compression.type']}: the broker compresses every batch again; "
            "set it to producer"
        )
    expiration_ms = int(broker.get("producer.id.expiration.ms", DAY_MS))
    if expiration_ms < DAY_MS:
        warnings.append(
            f"producer.id.expiration.ms is {expiration_ms}: after a longer break the broker no longer knows a "
            "forwarder's batches, and a repeat is stored twice"
        )
    if not topic:
        warnings.append("its settings cannot be read (DESCRIBE_CONFIGS is needed), so they were not checked")
    code = Code.UNAUTHORISED if rights else Code.UNAVAILABLE
    return Findings((*rights, *refusals), tuple(warnings), _notes(topic, replication_factor), code)


def _notes(topic: Mapping[str, str], replication_factor: int) -> tuple[str, ...]:
    notes = []
    if topic.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        notes.append(
            "message.timestamp.type is CreateTime: where the receivers' clocks cannot be trusted, choose "
            "LogAppendTime, or the broker can refuse batches and forget producers early"
        )
    if replication_factor == 1:
        notes.append(
            "it has one replica: what is acknowledged is lost with that broker's disk; three are better, where there "
            "are as many brokers"
        )
    return tuple(notes)


def _missing_rights(operations: int) -> list[str]:
    if operations == _OPERATIONS_UNKNOWN:
        return []
    needed = {"WRITE": _WRITE, "READ": _READ}
    missing = [name for name, bit in needed.items() if not operations >> bit & 1]
    why = {"WRITE": "to store batches", "READ": "to ask what is stored (DescribeProducers)"}
    return [f"this receiver lacks {name} on the topic, which it needs {why[name]}" for name in missing]


def _durability(topic: Mapping[str, str], replication_factor: int) -> tuple[list[str], list[str]]:
    refusals, warnings = [], []
    min_insync = int(topic.get("min.insync.replicas", 1))
    if min_insync > replication_factor > 0:
        refusals.append(
            f"min.insync.replicas is {min_insync} with {replication_factor} replicas: no batch can be acknowledged"
        )
    if topic and replication_factor > 1 and min_insync < 2:
        warnings.append("min.insync.replicas is 1: an acknowledged batch can be lost with one broker; set it to 2")
    if topic.get("unclean.leader.election.enable") == "true":
        warnings.append("unclean.leader.election.enable is true: acknowledged batches can be lost")
    return refusals, warnings
