"""Two real connections joined by a fake wire, and either of them in any state."""

from __future__ import annotations

from streams.errors import RemoteProtocolError
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, ReceiverConnection, State

WINDOW = 5
HELLO = m.Hello(1, "forwarder", "boot", "http", "hybrid")
WELCOME = m.Welcome(1, "session", "cluster", "topic", "id", 1_048_588, WINDOW, 0)


def run_of(number: int) -> m.Run:
    return m.Run(number, "topic", "id", 0, 1000, b"grant")


def batch(seq: int, run: int = 1) -> m.Batch:
    return m.Batch(seq, run, 1, memoryview(b"payload"))


def frame_of(*messages: m.Message) -> bytes:
    """Frames as bytes, whether or not anybody may say them now."""
    return b"".join(bytes(part) for message in messages for part in codec.encode(message))


class Wire:
    """`forward` and `back` say messages on one side and give what the other side made of them."""

    def __init__(self) -> None:
        self.forwarder, self.receiver = ForwarderConnection(), ReceiverConnection()

    def forward(self, *messages: m.Message) -> list[m.Heard]:
        parts = [part for message in messages for part in self.forwarder.send(message)]
        return self.receiver.receive_data(b"".join(parts))

    def back(self, *messages: m.Message) -> list[m.Message]:
        parts = [part for message in messages for part in self.receiver.send(message)]
        return self.forwarder.receive_data(b"".join(parts))

    def open(self) -> Wire:
        self.forward(HELLO)
        self.back(WELCOME)
        self.forward(m.OpenRun(1))
        self.back(run_of(1))
        return self


def in_state(state: State, *, in_flight: int = 0) -> Wire:
    """Both sides in a state. RUNNING counts its batches in flight from 0; SETTLING from 1, as 0 was refused."""
    wire = Wire()
    steps = {State.START: 0, State.GREETED: 1, State.READY: 2, State.ASKING: 3}.get(state, 4)
    if steps > 0:
        wire.forward(HELLO)
    if steps > 1:
        wire.back(WELCOME)
    if steps > 2:
        wire.forward(m.OpenRun(1))
    if steps > 3:
        wire.back(run_of(1))
    if state is State.RUNNING and in_flight:
        wire.forward(*(batch(seq) for seq in range(in_flight)))
    if state is State.SETTLING:
        wire.forward(*(batch(seq) for seq in range(in_flight + 1)))
        wire.back(m.Nack(0, "unavailable"))
    if state is State.FAILED:
        for side in (wire.forwarder, wire.receiver):
            break_protocol(side)
    if state is State.CLOSED:
        wire.forward(m.Error("internal"))
    return wire


def break_protocol(side: ForwarderConnection | ReceiverConnection) -> None:
    """Let the peer have said what nobody may say."""
    try:
        side.receive_data(frame_of(HELLO, HELLO))
    except RemoteProtocolError:
        return
    raise AssertionError("two HELLOs were taken")
