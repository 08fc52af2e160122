"""The rules outside the table of states: order, window, run, GOAWAY, limits, and how a link ends."""

from __future__ import annotations

import copy

import pytest
from msgspec.structs import replace

from streams.errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, ReceiverConnection, State, error_message
from tests.streams.wire.joined import HELLO, WELCOME, WINDOW, Wire, batch, frame_of, in_state, run_of


def test_a_whole_conversation() -> None:
    wire = Wire().open()
    assert wire.forward(batch(0), batch(1), m.Ping(9)) == [batch(0), batch(1), m.Ping(9)]
    assert wire.forwarder.in_flight == wire.receiver.in_flight == 2
    assert wire.back(m.Pong(9), m.Ack(0, 0, 5), m.Ack(1, 0, 6)) == [m.Pong(9), m.Ack(0, 0, 5), m.Ack(1, 0, 6)]
    assert wire.forwarder.in_flight == wire.receiver.in_flight == 0
    assert wire.forward(m.OpenRun(2)) == [m.OpenRun(2)]
    assert wire.back(run_of(2)) == [run_of(2)]
    assert wire.forward(batch(2, run=2), m.Goaway("rotation")) == [batch(2, run=2), m.Goaway("rotation")]
    assert wire.back(m.Ack(2, 0, 7)) == [m.Ack(2, 0, 7)]


def test_batches_that_crossed_a_refusal_are_still_received_and_answered() -> None:
    wire = Wire().open()
    wire.forward(batch(0))
    crossing = b"".join(wire.forwarder.send(batch(1)))
    wire.back(m.Nack(0, "unavailable"))
    assert not wire.forwarder.can_send_batch
    assert wire.receiver.receive_data(crossing) == [batch(1)]
    wire.back(m.Nack(1, "not_tried"))
    assert not wire.forwarder.can_send_batch  # it has to ask first
    assert wire.forward(m.OpenRun(1)) == [m.OpenRun(1)]
    wire.back(run_of(1))
    assert wire.forwarder.can_send_batch


@pytest.mark.parametrize("message", [batch(1), batch(0, run=2)], ids=["a batch is missing", "another run"])
def test_batches_follow_each_other_and_belong_to_the_open_run(message: m.Batch) -> None:
    wire = Wire().open()
    with pytest.raises(LocalProtocolError) as ours:
        wire.forwarder.send(message)
    assert ours.value.code is Code.BAD_SEQUENCE
    with pytest.raises(RemoteProtocolError) as error:
        wire.receiver.receive_data(frame_of(message))
    assert error.value.code is Code.BAD_SEQUENCE


def test_the_window_that_was_granted_is_kept_on_both_sides() -> None:
    wire = in_state(State.RUNNING, in_flight=WINDOW)
    assert not wire.forwarder.can_send_batch
    with pytest.raises(LocalProtocolError) as ours:
        wire.forwarder.send(batch(WINDOW))
    assert ours.value.code is Code.UNEXPECTED_MESSAGE
    with pytest.raises(RemoteProtocolError) as error:
        wire.receiver.receive_data(frame_of(batch(WINDOW)))
    assert error.value.code is Code.UNEXPECTED_MESSAGE


def test_runs_are_opened_only_when_nothing_is_in_flight() -> None:
    for state in (State.RUNNING, State.SETTLING):
        wire = in_state(state, in_flight=1)
        with pytest.raises(LocalProtocolError):
            wire.forwarder.send(m.OpenRun(2))
        with pytest.raises(RemoteProtocolError):
            wire.receiver.receive_data(frame_of(m.OpenRun(2)))


@pytest.mark.parametrize("answer", [m.Ack(1, 0, 0), m.Nack(1, "unavailable"), m.Nack(-1, "unavailable")], ids=str)
def test_answers_come_in_the_order_of_the_batches(answer: m.Message) -> None:
    wire = in_state(State.RUNNING, in_flight=2)
    with pytest.raises(LocalProtocolError) as ours:
        wire.receiver.send(answer)
    assert ours.value.code is Code.BAD_SEQUENCE
    with pytest.raises(RemoteProtocolError) as error:
        wire.forwarder.receive_data(frame_of(answer))
    assert error.value.code is Code.BAD_SEQUENCE


@pytest.mark.parametrize("answer", [m.Ack(0, 0, 0), m.Nack(0, "unavailable")], ids=str)
def test_nothing_is_answered_twice(answer: m.Message) -> None:
    wire = Wire().open()
    wire.forward(batch(0))
    wire.back(m.Ack(0, 0, 0))
    with pytest.raises(LocalProtocolError):
        wire.receiver.send(answer)
    with pytest.raises(RemoteProtocolError) as error:
        wire.forwarder.receive_data(frame_of(answer))
    assert error.value.code is Code.BAD_SEQUENCE


@pytest.mark.parametrize("answer", [run_of(2), m.Nack(0, "unavailable")], ids=["another run", "not minus one"])
def test_the_answer_to_open_run_is_for_the_run_that_was_asked_for(answer: m.Message) -> None:
    wire = in_state(State.ASKING)
    with pytest.raises(LocalProtocolError):
        wire.receiver.send(answer)
    with pytest.raises(RemoteProtocolError) as error:
        wire.forwarder.receive_data(frame_of(answer))
    assert error.value.code is Code.BAD_SEQUENCE


def test_nothing_new_is_sent_after_the_receivers_goaway_but_answers_still_come() -> None:
    wire = in_state(State.RUNNING, in_flight=1)
    crossing = b"".join(wire.forwarder.send(batch(1)))
    wire.back(m.Goaway("stop"))
    assert not wire.forwarder.can_send_batch
    with pytest.raises(LocalProtocolError):
        wire.forwarder.send(batch(2))
    assert wire.receiver.receive_data(crossing) == [batch(1)]
    assert wire.back(m.Ack(0, 0, 0), m.Ack(1, 0, 1)) == [m.Ack(0, 0, 0), m.Ack(1, 0, 1)]
    with pytest.raises(LocalProtocolError):
        wire.forwarder.send(m.OpenRun(2))


@pytest.mark.parametrize("message", [batch(1), m.OpenRun(2)], ids=["BATCH", "OPEN_RUN"])
def test_nothing_new_is_said_or_heard_after_the_forwarders_own_goaway(message: m.Message) -> None:
    wire = in_state(State.RUNNING, in_flight=1)
    wire.forward(m.Goaway("rotation"))
    assert wire.back(m.Ack(0, 0, 0)) == [m.Ack(0, 0, 0)]
    assert not wire.forwarder.can_send_batch
    with pytest.raises(LocalProtocolError):
        wire.forwarder.send(message)
    with pytest.raises(RemoteProtocolError) as error:
        wire.receiver.receive_data(frame_of(message))
    assert error.value.code is Code.UNEXPECTED_MESSAGE


def test_large_frames_are_taken_only_after_welcome() -> None:
    announced = (m.MAX_FRAME_BYTES_BEFORE_WELCOME + 1).to_bytes(4, "big")
    for state, refused in ((State.START, True), (State.GREETED, True), (State.READY, False)):
        receiver = in_state(state).receiver
        if refused:
            with pytest.raises(RemoteProtocolError) as error:
                receiver.receive_data(announced)
            assert error.value.code is Code.FRAME_TOO_LARGE
        else:
            assert receiver.receive_data(announced) == []
    with pytest.raises(RemoteProtocolError):
        in_state(State.READY).receiver.receive_data((m.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_a_tighter_limit_of_frames_can_be_set() -> None:
    receiver = ReceiverConnection(max_frame_bytes=100_000)
    receiver.receive_data(frame_of(HELLO))
    receiver.send(WELCOME)
    assert receiver.receive_data((100_000).to_bytes(4, "big")) == []
    other = ReceiverConnection(max_frame_bytes=100)
    with pytest.raises(RemoteProtocolError) as error:
        other.receive_data((101).to_bytes(4, "big"))
    assert error.value.code is Code.FRAME_TOO_LARGE


def test_what_cannot_be_sent_changes_nothing() -> None:
    forwarder = ForwarderConnection()
    with pytest.raises(LocalProtocolError):
        forwarder.send(m.Hello(1, "x" * 256, "boot", "http", "hybrid"))
    assert forwarder.state is State.START
    forwarder = Wire().open().forwarder
    with pytest.raises(LocalProtocolError) as ours:
        forwarder.send(m.Batch(0, 1, 1, memoryview(bytes(m.MAX_FRAME_BYTES))))
    assert ours.value.code is Code.FRAME_TOO_LARGE
    assert forwarder.in_flight == 0
    assert forwarder.send(batch(0))


def test_a_peer_that_broke_the_protocol_gets_the_reason_once() -> None:
    wire = Wire().open()
    with pytest.raises(RemoteProtocolError) as error:
        wire.receiver.receive_data(frame_of(batch(7)))
    assert wire.receiver.state is State.FAILED
    with pytest.raises(RemoteProtocolError):
        wire.receiver.receive_data(frame_of(m.Ping(1)))
    (heard,) = wire.back(error_message(error.value))
    assert heard == m.Error("bad_sequence", "batch 7, not 0")
    assert wire.receiver.state is wire.forwarder.state is State.CLOSED
    with pytest.raises(LocalProtocolError):
        wire.receiver.send(error_message(error.value))


def test_an_error_is_heard_though_more_follows_it() -> None:
    wire = Wire().open()
    bytes_behind = frame_of(m.Error("policy", "why"), m.Ping(1)) + b"\xff\xff\xff\xff"
    assert wire.forwarder.receive_data(bytes_behind) == [m.Error("policy", "why")]
    assert wire.forwarder.state is State.CLOSED


def test_an_error_message_always_fits() -> None:
    for text in ("€" * 1000, "half a file name \udcff"):
        assert ReceiverConnection().send(error_message(ProtocolError(Code.MALFORMED, text)))


def test_a_link_that_ends_between_frames_is_closed() -> None:
    for state in State:
        wire = in_state(state)
        for side in (wire.forwarder, wire.receiver):
            assert side.receive_data(b"") == []
            assert side.state is (State.FAILED if state is State.FAILED else State.CLOSED)


@pytest.mark.parametrize("kept", [1, 4, 5, -1])
def test_a_link_that_ends_within_a_frame_is_a_protocol_error(kept: int) -> None:
    receiver = ReceiverConnection()
    assert receiver.receive_data(frame_of(HELLO)[:kept]) == []
    with pytest.raises(RemoteProtocolError) as error:
        receiver.receive_data(b"")
    assert error.value.code is Code.MALFORMED
    assert receiver.state is State.CLOSED
    assert receiver.receive_data(b"") == []


def test_a_batch_beyond_the_run_s_limit_is_read_past_and_what_follows_is_heard() -> None:
    wire = Wire()
    wire.forward(HELLO)
    wire.back(WELCOME)
    wire.forward(m.OpenRun(1))
    wire.back(replace(run_of(1), max_message_bytes=5000))
    large = m.Batch(1, 1, 7, memoryview(bytes(100_000)))
    parts = b"".join(bytes(part) for each in (batch(0), large, batch(2)) for part in wire.forwarder.send(each))
    for size in (len(parts), 1000, 7):
        receiver = copy.deepcopy(wire.receiver)
        heard = [event for at in range(0, len(parts), size) for event in receiver.receive_data(parts[at : at + size])]
        assert heard == [batch(0), m.Overlong(1, 1, 7, 100_000), batch(2)]
        assert receiver.in_flight == 3


def test_a_frame_that_is_read_past_needs_no_memory_and_one_that_is_kept_says_how_much() -> None:
    wire = Wire()
    wire.forward(HELLO)
    wire.back(WELCOME)
    wire.forward(m.OpenRun(1))
    wire.back(replace(run_of(1), max_message_bytes=5000))
    assert wire.receiver.announced_bytes == 0
    frame = frame_of(m.Batch(0, 1, 1, memoryview(bytes(4000))))
    assert wire.receiver.receive_data(frame[:100]) == []
    assert wire.receiver.announced_bytes == len(frame) - 4
    wire.receiver.receive_data(frame[100:])
    assert wire.receiver.announced_bytes == 0
    wire.receiver.receive_data(frame_of(m.Batch(1, 1, 1, memoryview(bytes(1 << 20))))[:1000])
    assert wire.receiver.announced_bytes == 0


@pytest.mark.parametrize("limits", [(1 << 20, 5000), (5000, 1 << 20)])
@pytest.mark.parametrize("begun", [100, 20_000])
def test_a_frame_that_was_begun_before_the_limit_changed_is_taken_as_it_was_begun(
    limits: tuple[int, int], begun: int
) -> None:
    wire = Wire()
    wire.forward(HELLO)
    wire.back(WELCOME)
    wire.forward(m.OpenRun(1))
    wire.back(replace(run_of(1), max_message_bytes=limits[0]))
    wire.forward(m.OpenRun(2))
    large = m.Batch(0, 2, 7, memoryview(bytes(100_000)))
    frame = frame_of(large)
    assert wire.receiver.receive_data(frame[:begun]) == []
    announced = wire.receiver.announced_bytes
    wire.receiver.send(replace(run_of(2), max_message_bytes=limits[1]))
    assert wire.receiver.announced_bytes == announced
    heard = [
        event for at in range(begun, len(frame), 9000) for event in wire.receiver.receive_data(frame[at : at + 9000])
    ]
    assert heard == [large if limits[0] > 5000 else m.Overlong(0, 2, 7, 100_000)]


@pytest.mark.parametrize("head", [b"\x95\x08", b"\x94\x05\x00\x01\x01", b"\xc1", b"\x95\x05\xff\x01\x01\xc6", b"\x05"])
def test_only_a_batch_may_be_longer_than_a_batch_may_be(head: bytes) -> None:
    wire = in_state(State.ASKING)
    wire.back(replace(run_of(1), max_message_bytes=5000))
    with pytest.raises(RemoteProtocolError) as error:
        wire.receiver.receive_data((10_000).to_bytes(4, "big") + head.ljust(10_000, b"\0"))
    assert error.value.code is Code.MALFORMED
