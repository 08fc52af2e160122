"""Whatever comes, in whatever pieces: only RemoteProtocolError comes out, and memory stays in proportion to the bytes.

`corpus/` holds what once was, or easily could be, taken wrongly. A file is named SIDE.STATE.CODE.WHAT.bin: its bytes,
heard by that side in that state, break the protocol with that code.
"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import Code, RemoteProtocolError
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, ReceiverConnection, State, error_message
from tests.streams.wire.joined import HELLO, WELCOME, batch, frame_of, in_state, run_of

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
LISTENING = [state for state in State if state not in (State.FAILED, State.CLOSED)]
SAID_BY_FORWARDER: list[m.Message] = [
    HELLO,
    m.OpenRun(1),
    batch(0),
    batch(1),
    m.Report("http", "boot", 1, 1, 0, 0, 0),
    m.Ping(1),
]
SAID_BY_RECEIVER: list[m.Message] = [
    WELCOME,
    run_of(1),
    m.Ack(0, 0, 0),
    m.Nack(0, "corrupt"),
    m.Nack(-1, "clock"),
    m.Pong(1),
]


def listener(side: str, state: State) -> ForwarderConnection | ReceiverConnection:
    wire = in_state(state)
    return wire.forwarder if side == "forwarder" else wire.receiver


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 20


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_is_in_the_corpus_is_refused_with_its_code(path: Path, size: int) -> None:
    side, state, code, _ = path.stem.split(".")
    data = path.read_bytes()
    connection = listener(side, State(state))
    with pytest.raises(RemoteProtocolError) as error:
        for start in range(0, len(data), size):
            connection.receive_data(data[start : start + size])
    assert error.value.code is Code(code)
    assert connection.state is State.FAILED


def hear(connection: ForwarderConnection | ReceiverConnection, data: bytes, cuts: list[int]) -> None:
    """Feed bytes in pieces. A fault ends the link, is raised once, and is final."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    fault: RemoteProtocolError | None = None
    for start, end in pairwise(places):
        try:
            connection.receive_data(data[start:end])
        except RemoteProtocolError as error:
            fault = error
        if fault is not None or connection.state is State.CLOSED:
            break
    if fault is not None:
        assert connection.state is State.FAILED
        with pytest.raises(RemoteProtocolError):
            connection.receive_data(frame_of(m.Ping(1)))
        assert connection.send(error_message(fault))


@given(
    side=st.sampled_from(["forwarder", "receiver"]),
    state=st.sampled_from(LISTENING),
    data=st.binary(max_size=200)
    | st.lists(st.binary(min_size=1, max_size=60), max_size=4).map(
        lambda bodies: b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    ),
    cuts=st.lists(st.integers(0, 1000), max_size=5),
)
def test_no_bytes_get_more_than_a_protocol_error(side: str, state: State, data: bytes, cuts: list[int]) -> None:
    hear(listener(side, state), data, cuts)


@given(
    side=st.sampled_from(["forwarder", "receiver"]),
    state=st.sampled_from(LISTENING),
    picks=st.lists(st.integers(0, len(SAID_BY_FORWARDER) - 1), min_size=1, max_size=6),
    damage=st.lists(
        st.tuples(st.sampled_from(["set", "insert", "delete"]), st.integers(0, 1000), st.integers(0, 255)), max_size=4
    ),
    cuts=st.lists(st.integers(0, 1000), max_size=5),
)
def test_no_damage_to_a_conversation_gets_more_than_a_protocol_error(
    side: str, state: State, picks: list[int], damage: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    said = SAID_BY_RECEIVER if side == "forwarder" else SAID_BY_FORWARDER
    data = bytearray(frame_of(*(said[pick] for pick in picks)))
    for kind, place, value in damage:
        at = place % len(data) if data else 0
        data[at : at + (kind != "insert")] = b"" if kind == "delete" else bytes([value])
    hear(listener(side, state), bytes(data), cuts)


@given(
    tag=st.integers(0, 13),
    fields=st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(1 << 63), (1 << 64) - 1)
            | st.text(max_size=300)
            | st.binary(max_size=300)
            | st.floats(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
        max_size=10,
    ),
)
def test_what_another_writer_of_msgpack_makes_is_read_or_refused(tag: int, fields: list[object]) -> None:
    body = msgpack.packb([tag, *fields])
    try:
        message = codec.decode(memoryview(body))
    except RemoteProtocolError:
        return
    assert codec.decode(memoryview(frame_of(message))[4:]) == message


def peak_bytes_of(connection: ReceiverConnection, data: bytes) -> int:
    tracemalloc.start()
    try:
        connection.receive_data(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_fields_of_a_later_version_cost_no_memory() -> None:
    count = 500_000
    body = b"\x96\x05\x00\x01\x01\xc4\x00" + b"\xdd" + count.to_bytes(4, "big") + b"\x80" * count  # empty maps
    assert peak_bytes_of(in_state(State.RUNNING).receiver, len(body).to_bytes(4, "big") + body) < 50_000


def test_a_frame_within_the_bytes_given_costs_no_memory_and_another_costs_its_size() -> None:
    data = frame_of(m.Batch(0, 1, 1, memoryview(bytes(1_000_000))))
    assert peak_bytes_of(in_state(State.RUNNING).receiver, data) < 50_000
    assert peak_bytes_of(in_state(State.RUNNING).receiver, data[:-1]) < 1_050_000
