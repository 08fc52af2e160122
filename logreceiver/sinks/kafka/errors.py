"""What Kafka's error codes mean for a batch or for another request. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from logreceiver.sinks import Kind, Outcome
from streams.errors import Code, SinkUnavailable

NO_ERROR, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_LEADER, TOPIC_ALREADY_EXISTS = 0, 3, 5, 6, 36
UNAUTHORISED = (29, 31)
"""TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED"""

_CODES: Mapping[int, Code] = {
    -1: Code.INVALID_RECORD,  # its answer to records that it cannot decompress, but also to any trouble of its own
    2: Code.INVALID_RECORD,  # CORRUPT_MESSAGE: the receiver found the batch sound, so perhaps only the way there
    3: Code.TOPIC_MISSING,
    5: Code.UNAVAILABLE,  # LEADER_NOT_AVAILABLE
    6: Code.UNAVAILABLE,  # NOT_LEADER_OR_FOLLOWER
    7: Code.TIMED_OUT,
    9: Code.UNAVAILABLE,  # REPLICA_NOT_AVAILABLE
    10: Code.TOO_LARGE,
    13: Code.UNAVAILABLE,  # NETWORK_EXCEPTION
    17: Code.TOPIC_MISSING,  # INVALID_TOPIC_EXCEPTION
    18: Code.TOO_LARGE,  # RECORD_LIST_TOO_LARGE
    19: Code.UNAVAILABLE,  # NOT_ENOUGH_REPLICAS
    20: Code.TIMED_OUT,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    29: Code.UNAUTHORISED,
    31: Code.UNAUTHORISED,
    32: Code.CLOCK,
    45: Code.OUT_OF_ORDER,
    46: Code.OUT_OF_ORDER,  # DUPLICATE_SEQUENCE_NUMBER: older than the batches it remembers; `ask` finds out
    47: Code.FENCED,
    56: Code.UNAVAILABLE,  # KAFKA_STORAGE_ERROR
    59: Code.OUT_OF_ORDER,  # UNKNOWN_PRODUCER_ID
    74: Code.UNAVAILABLE,
    75: Code.UNAVAILABLE,
    76: Code.INVALID_RECORD,  # UNSUPPORTED_COMPRESSION_TYPE
    87: Code.INVALID_RECORD,
    89: Code.UNAVAILABLE,  # THROTTLING_QUOTA_EXCEEDED
    90: Code.FENCED,
}
_PERHAPS_APPENDED = frozenset({7, 13, 20, 56})
"""After these the leader may have appended the batch nevertheless: REQUEST_TIMED_OUT, NETWORK_EXCEPTION,
NOT_ENOUGH_REPLICAS_AFTER_APPEND, KAFKA_STORAGE_ERROR."""


def refusal(error_code: int, text: str | None) -> Outcome:
    """What a broker's error means for a batch; an error that has no code here is a refusal, too."""
    kind = Kind.UNCERTAIN if error_code in _PERHAPS_APPENDED else Kind.REFUSED
    code = _CODES.get(error_code, Code.UNKNOWN)
    return Outcome(kind, code=code, text=f"{text or code.sentence} (Kafka error {error_code})")


def raise_for(error_code: int, what: str) -> None:
    """SinkUnavailable for an error code of a request that is not Produce."""
    if error_code == NO_ERROR:
        return
    code = Code.UNAVAILABLE
    if error_code in (UNKNOWN_TOPIC, 17):
        code = Code.TOPIC_MISSING
    elif error_code in UNAUTHORISED:
        code = Code.UNAUTHORISED
    raise SinkUnavailable(code, f"{what}: {code.sentence} (Kafka error {error_code})")
