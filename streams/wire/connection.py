"""The protocol's two sides, without I/O: bytes in, messages out; which side may say what, and when. Modelled on h11.

One table for each speaker, `FORWARDER_SAYS` and `RECEIVER_SAYS`, gives the next state for (state, message); a pair that
is not in it is a protocol error. Rules that a table cannot express are checked in code: batches are numbered from 0,
answers come in the same order, the window is kept, a batch belongs to the open run, and runs are opened only when
nothing is in flight.

    START ──HELLO──▶ GREETED ──WELCOME──▶ READY ──OPEN_RUN──▶ ASKING ──RUN──▶ RUNNING ──NACK──▶ SETTLING
                                            ▲                  │  ▲              │                 │
                                            └──────NACK −1─────┘  └───OPEN_RUN───┴─────────────────┘

SETTLING: a batch was refused; batches that crossed the refusal on the wire still arrive, and are answered.
FAILED: the peer broke the protocol; nothing more is accepted from it, and only the ERROR that says so may be sent.
After GOAWAY from either side, no more BATCH or OPEN_RUN is sent; answers still are.

`receive_data` raises RemoteProtocolError: the peer's fault, which ends the link. Messages before the fault in the same
bytes may be lost with it, which is safe: what was not acknowledged is sent again. `send` raises LocalProtocolError: a
fault of ours, or a link that has just ended; nothing is to be written and nothing has changed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any

from streams.errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.framing import Deframer


class State(enum.Enum):
    START = "start"
    GREETED = "greeted"
    READY = "ready"
    ASKING = "asking"
    RUNNING = "running"
    SETTLING = "settling"
    FAILED = "failed"
    CLOSED = "closed"


Fault = type[ProtocolError]
Table = dict[tuple[State, type[m.Heard]], State]

HEAD_BYTES = 64
"""Room for what stands before the payload of a batch."""
OTHERS_BYTES = 4096
"""Room for any message but a batch."""

_LIVE = (State.READY, State.ASKING, State.RUNNING, State.SETTLING)
_ANYTIME: Table = {(state, kind): state for state in _LIVE for kind in (m.Ping, m.Pong, m.Goaway)}
_ERRORS: Table = {(state, m.Error): State.CLOSED for state in State if state is not State.CLOSED}

FORWARDER_SAYS: Table = {
    (State.START, m.Hello): State.GREETED,
    (State.READY, m.OpenRun): State.ASKING,
    (State.RUNNING, m.OpenRun): State.ASKING,
    (State.SETTLING, m.OpenRun): State.ASKING,
    (State.RUNNING, m.Batch): State.RUNNING,
    **{(state, m.Report): state for state in _LIVE},
    **_ANYTIME,
    **_ERRORS,
}
"""What a forwarder may say."""

RECEIVER_SAYS: Table = {
    (State.GREETED, m.Welcome): State.READY,
    (State.ASKING, m.Run): State.RUNNING,
    (State.ASKING, m.Nack): State.READY,
    (State.RUNNING, m.Ack): State.RUNNING,
    (State.RUNNING, m.Nack): State.SETTLING,
    (State.SETTLING, m.Ack): State.SETTLING,
    (State.SETTLING, m.Nack): State.SETTLING,
    **_ANYTIME,
    **_ERRORS,
}
"""What a receiver may say."""

RECEIVER_HEARS: Table = {
    **FORWARDER_SAYS,
    **{(state, kind): state for state in (State.RUNNING, State.SETTLING) for kind in (m.Batch, m.Overlong)},
}
"""What a forwarder may have said from the receiver's point of view: a batch can cross a NACK on the wire."""


class _Conversation:
    """What both sides know about the link: its state, its window, and what is in flight."""

    def __init__(self, max_frame_bytes: int, *, forwarder: Fault, receiver: Fault) -> None:
        """`forwarder`, `receiver`: what is raised for a fault of that side, local or remote."""
        self._forwarders_fault, self._receivers_fault = forwarder, receiver
        self.state = State.START
        self.max_frame_bytes = min(max_frame_bytes, m.MAX_FRAME_BYTES)
        self.deframer = Deframer(min(self.max_frame_bytes, m.MAX_FRAME_BYTES_BEFORE_WELCOME))
        self.window = 0
        self.run = -1
        self.next_seq = 0
        self.next_answer = 0
        self.forwarder_leaves = False
        self.receiver_leaves = False

    @property
    def in_flight(self) -> int:
        return self.next_seq - self.next_answer

    def forwarder_said(self, message: m.Heard, table: Table) -> None:
        """Advance after a message of the forwarder."""
        following = self._follow(table, message, self._forwarders_fault)
        if self.forwarder_leaves and isinstance(message, m.OpenRun | m.Batch | m.Overlong):
            raise self._forwarders_fault(Code.UNEXPECTED_MESSAGE, f"{type(message).__name__} after GOAWAY")
        if isinstance(message, m.OpenRun):
            if self.in_flight:
                raise self._forwarders_fault(Code.UNEXPECTED_MESSAGE, "OPEN_RUN while batches are in flight")
            self.run = message.run
        elif isinstance(message, m.Batch | m.Overlong):
            self._check_batch(message)
            self.next_seq += 1
        elif isinstance(message, m.Goaway):
            self.forwarder_leaves = True
        self.state = following

    def _check_batch(self, batch: m.Batch | m.Overlong) -> None:
        if batch.seq != self.next_seq:
            raise self._forwarders_fault(Code.BAD_SEQUENCE, f"batch {batch.seq}, not {self.next_seq}")
        if batch.run != self.run:
            raise self._forwarders_fault(Code.BAD_SEQUENCE, f"batch of run {batch.run}, not {self.run}")
        if self.in_flight >= self.window:
            raise self._forwarders_fault(Code.UNEXPECTED_MESSAGE, f"more than {self.window} batches in flight")

    def receiver_said(self, message: m.Message) -> None:
        """Advance after a message of the receiver."""
        following = self._follow(RECEIVER_SAYS, message, self._receivers_fault)
        if isinstance(message, m.Welcome):
            self.window = message.window
            self.deframer.max_frame_bytes = self.deframer.keep_bytes = self.max_frame_bytes
        elif isinstance(message, m.Run) and message.run != self.run:
            raise self._receivers_fault(Code.BAD_SEQUENCE, f"run {message.run}, not {self.run}")
        elif isinstance(message, m.Ack | m.Nack) and self.state is State.ASKING:
            if message.seq != -1:
                raise self._receivers_fault(Code.BAD_SEQUENCE, "an answer to OPEN_RUN has seq -1")
        elif isinstance(message, m.Ack | m.Nack):
            if self.in_flight == 0 or message.seq != self.next_answer:
                raise self._receivers_fault(Code.BAD_SEQUENCE, f"answer to {message.seq}, not {self.next_answer}")
            self.next_answer += 1
        elif isinstance(message, m.Goaway):
            self.receiver_leaves = True
        self.state = following

    def _follow(self, table: Table, message: m.Heard, fault: Fault) -> State:
        following = table.get((self.state, type(message)))
        if following is None:
            raise fault(Code.UNEXPECTED_MESSAGE, f"{type(message).__name__} while {self.state.value}")
        return following


class ForwarderConnection:
    """The forwarder's side of a link."""

    def __init__(self, max_frame_bytes: int = m.MAX_FRAME_BYTES) -> None:
        self._talk = _Conversation(max_frame_bytes, forwarder=LocalProtocolError, receiver=RemoteProtocolError)

    @property
    def state(self) -> State:
        return self._talk.state

    @property
    def in_flight(self) -> int:
        """Batches sent and not yet answered."""
        return self._talk.in_flight

    @property
    def can_send_batch(self) -> bool:
        talk = self._talk
        leaving = talk.forwarder_leaves or talk.receiver_leaves
        return talk.state is State.RUNNING and not leaving and talk.in_flight < talk.window

    def send(self, message: m.Message) -> list[bytes | memoryview]:
        """The buffers to write for a message of ours, in this order."""
        if self._talk.receiver_leaves and isinstance(message, m.OpenRun | m.Batch):
            raise LocalProtocolError(Code.UNEXPECTED_MESSAGE, f"{type(message).__name__} after the receiver's GOAWAY")
        buffers = codec.encode(message)
        self._talk.forwarder_said(message, FORWARDER_SAYS)
        return buffers

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[m.Message]:
        """The messages completed by these bytes; b"" means that the link has ended."""
        return list(self.messages(data))

    def messages(self, data: bytes | bytearray | memoryview) -> Iterator[m.Message]:
        """The same one by one: each is decoded and checked when it is asked for."""
        return _receive(self._talk, data, self._talk.receiver_said)


class ReceiverConnection:
    """The receiver's side of a link."""

    def __init__(self, max_frame_bytes: int = m.MAX_FRAME_BYTES) -> None:
        self._talk = _Conversation(max_frame_bytes, forwarder=RemoteProtocolError, receiver=LocalProtocolError)

    @property
    def state(self) -> State:
        return self._talk.state

    @property
    def in_flight(self) -> int:
        """Batches received and not yet answered."""
        return self._talk.in_flight

    @property
    def missing_bytes(self) -> int:
        """Fewer bytes than this cannot complete a message."""
        return self._talk.deframer.missing_bytes

    @property
    def announced_bytes(self) -> int:
        """The memory that a message needs that has begun to come; 0 if none has, or if it is read past."""
        return self._talk.deframer.announced_bytes

    @property
    def reads_past(self) -> bool:
        """True while a message comes that is longer than what is taken."""
        return self._talk.deframer.reads_past

    def forget(self) -> None:
        """Give up the memory of a message that has begun to come; the link has ended."""
        self._talk.deframer.forget()

    def send(self, message: m.Message) -> list[bytes | memoryview]:
        """The buffers to write for a message of ours, in this order."""
        buffers = codec.encode(message)
        self._talk.receiver_said(message)
        if isinstance(message, m.Run) and message.max_message_bytes:  # longer batches would only be refused
            self._talk.deframer.keep_bytes = max(message.max_message_bytes, OTHERS_BYTES) + HEAD_BYTES
        return buffers

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[m.Heard]:
        """The messages completed by these bytes; b"" means that the link has ended."""
        return list(self.messages(data))

    def messages(self, data: bytes | bytearray | memoryview) -> Iterator[m.Heard]:
        """The same one by one: each is decoded and checked when it is asked for."""
        return _receive(self._talk, data, lambda message: self._talk.forwarder_said(message, RECEIVER_HEARS))


def _receive(talk: _Conversation, data: bytes | bytearray | memoryview, said: Callable[[Any], None]) -> Iterator[Any]:
    if len(data) == 0:
        _end(talk)
        return
    if talk.state in (State.FAILED, State.CLOSED):
        raise RemoteProtocolError(Code.UNEXPECTED_MESSAGE, "the link is closed")
    try:
        for frame in talk.deframer.feed(data):
            cut = talk.deframer.left_out
            message = codec.decode_beginning(frame, len(frame) + cut) if cut else codec.decode(frame)
            said(message)
            yield message
            if isinstance(message, m.Error):  # whatever follows must not hide it
                break
    except ProtocolError:
        talk.state = State.FAILED
        raise


def _end(talk: _Conversation) -> None:
    """The peer will send nothing more. Once the link has failed or closed, that is expected."""
    if talk.state in (State.FAILED, State.CLOSED):
        return
    talk.state = State.CLOSED
    if talk.deframer.mid_frame:
        raise RemoteProtocolError(Code.MALFORMED, "the link ended within a frame")


def error_message(error: ProtocolError) -> m.Error:
    """The ERROR that is sent to the peer before the link closes."""
    return m.Error(str(error.code), m.fit(error.text))
