"""The two sides of the protocol, joined by a fake wire: every pair of state and message, and the rules beside."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.errors import Code, ProtocolError
from streams.wire import messages as m
from streams.wire.connection import (
    FORWARDER_SAYS,
    RECEIVER_SAYS,
    ForwarderConnection,
    ReceiverConnection,
    State,
    error_message,
)

HELLO = m.Hello(1, "f", "b", "http", "hybrid")
WELCOME = m.Welcome(1, "s", "c", "t", "i", 1_048_588, 5, 0)
RUN = m.Run(1, "t", "i", 0, 1000, b"g")


def batch(seq: int, run: int = 1) -> m.Batch:
    return m.Batch(seq, run, 1, memoryview(b"payload"))


class Wire:
    """Two connections; `say` sends a message from one side and gives what the other made of it."""

    def __init__(self) -> None:
        self.forwarder, self.receiver = ForwarderConnection(), ReceiverConnection()

    def forward(self, *messages: m.Message) -> list[m.Message]:
        data = b"".join(bytes(part) for message in messages for part in self.forwarder.send(message))
        return self.receiver.receive_data(data)

    def back(self, *messages: m.Message) -> list[m.Message]:
        data = b"".join(bytes(part) for message in messages for part in self.receiver.send(message))
        return self.forwarder.receive_data(data)

    def open(self) -> Wire:
        self.forward(HELLO)
        self.back(WELCOME)
        self.forward(m.OpenRun(1))
        self.back(RUN)
        return self


def in_state(state: State) -> Wire:
    wire = Wire()
    if state is State.START:
        return wire
    wire.forward(HELLO)
    if state is State.GREETED:
        return wire
    wire.back(WELCOME)
    if state is State.READY:
        return wire
    wire.forward(m.OpenRun(1))
    if state is State.ASKING:
        return wire
    wire.back(RUN)
    if state is State.RUNNING:
        return wire
    if state is State.SETTLING:
        wire.forward(batch(0), batch(1))
        wire.back(m.Nack(0, "unavailable"))
        return wire
    wire.forward(m.Error("internal"))
    return wire


SAMPLES: dict[type[m.Message], m.Message] = {
    m.Hello: HELLO, m.Welcome: WELCOME, m.OpenRun: m.OpenRun(1), m.Run: RUN, m.Batch: batch(0), m.Ack: m.Ack(0, 0, 0),
    m.Nack: m.Nack(0, "unavailable"), m.Report: m.Report("http", "b", 0, 0, 0, 0, 0), m.Ping: m.Ping(1),
    m.Pong: m.Pong(1), m.Goaway: m.Goaway("rotation"), m.Error: m.Error("internal"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("side", ["forwarder", "receiver"])
def test_what_the_table_does_not_hold_cannot_be_said(side: str, state: State, kind: type[m.Message]) -> None:
    wire = in_state(state)
    table = FORWARDER_SAYS if side == "forwarder" else RECEIVER_SAYS
    speaker = wire.forwarder if side == "forwarder" else wire.receiver
    assert speaker.state is state
    if (state, kind) not in table:
        with pytest.raises(ProtocolError) as error:
            speaker.send(SAMPLES[kind])
        assert error.value.code is Code.UNEXPECTED_MESSAGE
        assert speaker.state is state


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("side", ["forwarder", "receiver"])
def test_what_the_table_does_not_hold_is_refused_from_the_peer(side: str, state: State, kind: type[m.Message]) -> None:
    """A peer that says it all the same closes the link; late batches behind a refusal are the one exception."""
    from streams.wire import codec

    wire = in_state(state)
    table = RECEIVER_SAYS if side == "forwarder" else FORWARDER_SAYS
    listener = wire.forwarder if side == "forwarder" else wire.receiver
    late_batch = side == "receiver" and state is State.SETTLING and kind is m.Batch
    if (state, kind) in table or late_batch:
        return
    data = b"".join(bytes(part) for part in codec.encode(SAMPLES[kind]))
    with pytest.raises(ProtocolError) as error:
        listener.receive_data(data)
    assert error.value.code is Code.UNEXPECTED_MESSAGE
    assert listener.state is State.CLOSED


def test_a_whole_conversation() -> None:
    wire = Wire().open()
    assert wire.forward(batch(0), batch(1), m.Ping(9)) == [batch(0), batch(1), m.Ping(9)]
    assert wire.forwarder.in_flight == wire.receiver.in_flight == 2
    assert wire.back(m.Pong(9), m.Ack(0, 0, 5), m.Ack(1, 0, 6)) == [m.Pong(9), m.Ack(0, 0, 5), m.Ack(1, 0, 6)]
    assert wire.forwarder.in_flight == 0
    assert wire.forward(m.OpenRun(2), m.Goaway("rotation"))


def test_batches_that_crossed_a_refusal_are_still_received_and_answered() -> None:
    wire = Wire().open()
    wire.forward(batch(0))
    crossing = b"".join(bytes(part) for part in wire.forwarder.send(batch(1)))
    wire.back(m.Nack(0, "unavailable"))
    assert not wire.forwarder.can_send_batch
    assert wire.receiver.receive_data(crossing) == [batch(1)]
    wire.back(m.Nack(1, "not_tried"))
    assert wire.forward(m.OpenRun(1)) == [m.OpenRun(1)]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (batch(1), Code.BAD_SEQUENCE),
        (batch(0, run=2), Code.BAD_SEQUENCE),
    ],
)
def test_batches_follow_each_other_and_belong_to_the_open_run(message: m.Batch, code: Code) -> None:
    wire = Wire().open()
    with pytest.raises(ProtocolError) as error:
        wire.forward(message)
    assert error.value.code is code


def test_the_window_is_kept_on_both_sides() -> None:
    wire = Wire().open()
    wire.forward(*(batch(seq) for seq in range(5)))
    assert not wire.forwarder.can_send_batch
    with pytest.raises(ProtocolError):
        wire.forwarder.send(batch(5))


def test_runs_are_opened_only_when_nothing_is_in_flight() -> None:
    wire = Wire().open()
    wire.forward(batch(0))
    with pytest.raises(ProtocolError):
        wire.forwarder.send(m.OpenRun(2))


def test_answers_come_in_order() -> None:
    wire = Wire().open()
    wire.forward(batch(0), batch(1))
    with pytest.raises(ProtocolError) as error:
        wire.receiver.send(m.Ack(1, 0, 0))
    assert error.value.code is Code.BAD_SEQUENCE


def test_nothing_new_is_sent_after_goaway_but_answers_still_come() -> None:
    wire = Wire().open()
    wire.forward(batch(0))
    wire.back(m.Goaway("stop"))
    assert not wire.forwarder.can_send_batch
    with pytest.raises(ProtocolError):
        wire.forwarder.send(batch(1))
    assert wire.back(m.Ack(0, 0, 0)) == [m.Ack(0, 0, 0)]


def test_large_frames_are_refused_before_welcome() -> None:
    receiver = ReceiverConnection()
    with pytest.raises(ProtocolError) as error:
        receiver.receive_data((m.MAX_FRAME_BYTES_BEFORE_WELCOME + 1).to_bytes(4, "big"))
    assert error.value.code is Code.FRAME_TOO_LARGE
    with pytest.raises(ProtocolError):
        receiver.receive_data(b"")


def test_an_error_message_always_fits() -> None:
    long = ProtocolError(Code.MALFORMED, "€" * 1000)
    assert ReceiverConnection().send(error_message(long))


class TwoSides(RuleBasedStateMachine):
    """A hypothesis-driven conversation over a wire that holds bytes back at will."""

    @initialize()
    def start(self) -> None:
        self.wire = Wire().open()
        self.to_receiver, self.to_forwarder = bytearray(), bytearray()
        self.waiting: list[int] = []
        self.next_seq = 0
        self.run = 1

    @precondition(lambda self: self.wire.forwarder.can_send_batch)
    @rule()
    def send_batch(self) -> None:
        for part in self.wire.forwarder.send(batch(self.next_seq, self.run)):
            self.to_receiver += part
        self.next_seq += 1

    @rule(size=st.integers(1, 40))
    def deliver_to_receiver(self, size: int) -> None:
        data, self.to_receiver = bytes(self.to_receiver[:size]), self.to_receiver[size:]
        for message in self.wire.receiver.receive_data(data) if data else []:
            if isinstance(message, m.Batch):
                self.waiting.append(message.seq)
            elif isinstance(message, m.OpenRun):
                answer = m.Run(message.run, "t", "i", 0, 1000, b"g")
                self.to_forwarder += b"".join(bytes(part) for part in self.wire.receiver.send(answer))

    @precondition(lambda self: self.waiting)
    @rule(stored=st.booleans())
    def answer(self, stored: bool) -> None:
        seq = self.waiting.pop(0)
        message = m.Ack(seq, 0, seq) if stored else m.Nack(seq, "unavailable")
        self.to_forwarder += b"".join(bytes(part) for part in self.wire.receiver.send(message))

    @rule(size=st.integers(1, 40))
    def deliver_to_forwarder(self, size: int) -> None:
        data, self.to_forwarder = bytes(self.to_forwarder[:size]), self.to_forwarder[size:]
        if data:
            self.wire.forwarder.receive_data(data)

    @precondition(lambda self: self.wire.forwarder.state in (State.SETTLING, State.RUNNING))
    @rule()
    def open_run(self) -> None:
        if self.wire.forwarder.in_flight == 0:
            self.run += 1
            self.to_receiver += b"".join(bytes(part) for part in self.wire.forwarder.send(m.OpenRun(self.run)))

    @invariant()
    def the_window_is_kept(self) -> None:
        if hasattr(self, "wire"):
            assert 0 <= self.wire.receiver.in_flight <= self.wire.forwarder.in_flight <= m.MAX_WINDOW


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
