"""Kafka's error codes: which leave a batch in doubt, and what the others mean."""

from __future__ import annotations

import pytest
from aiokafka import errors

from logreceiver.sinks import Kind
from logreceiver.sinks.kafka.errors import raise_for, refusal
from streams.errors import Code, SinkUnavailable

NETWORK_EXCEPTION = 13
IN_DOUBT = {
    errors.RequestTimedOutError.errno: Code.TIMED_OUT,
    errors.NotEnoughReplicasAfterAppendError.errno: Code.TIMED_OUT,
    errors.KafkaStorageError.errno: Code.UNAVAILABLE,
    NETWORK_EXCEPTION: Code.UNAVAILABLE,
}


@pytest.mark.parametrize("error_code", range(-1, 120))
def test_only_four_errors_leave_a_batch_in_doubt_all_others_are_refusals(error_code: int) -> None:
    if error_code == 0:
        return
    outcome = refusal(error_code, None)
    assert outcome.kind is (Kind.UNCERTAIN if error_code in IN_DOUBT else Kind.REFUSED)
    assert outcome.code is not None
    assert outcome.text.endswith(f"(Kafka error {error_code})")
    if error_code in IN_DOUBT:
        assert outcome.code is IN_DOUBT[error_code]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MessageSizeTooLargeError, Code.TOO_LARGE),
        (errors.RecordListTooLargeError, Code.TOO_LARGE),
        (errors.CorruptRecordException, Code.INVALID_RECORD),
        (errors.UnknownError, Code.INVALID_RECORD),
        (errors.InvalidTimestampError, Code.CLOCK),
        (errors.OutOfOrderSequenceNumber, Code.OUT_OF_ORDER),
        (errors.DuplicateSequenceNumber, Code.OUT_OF_ORDER),
        (errors.InvalidProducerEpoch, Code.FENCED),
        (errors.TopicAuthorizationFailedError, Code.UNAUTHORISED),
        (errors.UnknownTopicOrPartitionError, Code.TOPIC_MISSING),
        (errors.NotEnoughReplicasError, Code.UNAVAILABLE),
    ],
)
def test_the_codes_are_those_of_the_errors_names(error: type[errors.BrokerResponseError], code: Code) -> None:
    assert refusal(error.errno, None).code is code


@pytest.mark.parametrize(
    ("error_code", "code"),
    [
        (3, Code.TOPIC_MISSING),
        (17, Code.TOPIC_MISSING),
        (29, Code.UNAUTHORISED),
        (31, Code.UNAUTHORISED),
        (6, Code.UNAVAILABLE),
        (-1, Code.UNAVAILABLE),
    ],
)
def test_an_error_of_another_request_makes_the_sink_unavailable(error_code: int, code: Code) -> None:
    raise_for(0, "nothing")
    with pytest.raises(SinkUnavailable, match="a topic: ") as raised:
        raise_for(error_code, "a topic")
    assert raised.value.code is code
