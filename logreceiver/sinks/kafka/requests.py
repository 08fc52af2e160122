"""Requests that aiokafka lacks or knows only in older versions, spelled out in its protocol types.

Metadata is requested in version 12, which carries the cluster id, topic ids and the rights of this client.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import RequestStruct, Response
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

_TAGS = ("tags", TaggedFields)


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


NO_UUID = bytes(16)


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


class Metadata(OneVersion, RequestStruct):  # type: ignore[misc]
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
