"""The Produce request and its answer, held to aiokafka's own encoder and decoder."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v8

from logreceiver.sinks.kafka.produce import Produce, Row

BATCHES = {"http": [(0, memoryview(b"first")), (3, memoryview(b"second"))], "größe": [(1, memoryview(b""))]}


def test_the_request_is_what_aiokafka_would_send() -> None:
    ours = Produce(BATCHES, timeout_ms=1500)
    theirs = ProduceRequest_v7(
        None, -1, 1500, [(name, [(n, bytes(b)) for n, b in rows]) for name, rows in BATCHES.items()]
    )
    header = RequestHeader_v1(ours, correlation_id=7, client_id="logreceiver")
    message = ours.build_request_header(7, "logreceiver").encode() + ours.encode()
    expected = header.encode() + theirs.encode()
    assert (len(message), b"size" + message) == (len(expected), b"size" + expected)


def answer() -> bytes:
    return bytes(
        ProduceResponse_v8(
            [
                ("http", [(0, 0, 41, -1, 0, [], None), (3, 87, -1, -1, -1, [(5, "no key"), (6, None)], "invalid")]),
                ("größe", [(1, 87, -1, 1700000000000, -1, [(0, "no key")], None)]),
            ],
            0,
        ).encode()
    )


def test_the_answer_is_read_as_aiokafka_wrote_it() -> None:
    request = Produce(BATCHES, timeout_ms=1500)
    data = BytesIO(struct.pack(">i", 7) + answer())
    assert request.parse_response_header(data).correlation_id == 7
    assert request.RESPONSE_TYPE.decode(data) == {
        ("http", 0): Row(0, 41, -1, ""),
        ("http", 3): Row(87, -1, -1, "invalid"),
        ("größe", 1): Row(87, -1, 1700000000000, "no key"),
    }


@pytest.mark.parametrize("end", range(0, 100, 9))
def test_an_answer_that_is_cut_short_is_an_error(end: int) -> None:
    with pytest.raises(struct.error):
        Produce(BATCHES, timeout_ms=1500).RESPONSE_TYPE.decode(BytesIO(answer()[:end]))
