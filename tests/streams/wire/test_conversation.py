"""A hypothesis-driven conversation of two real connections over a wire that holds bytes back at will."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, ReceiverConnection, State
from tests.streams.wire.joined import HELLO, run_of

LIVE = (State.READY, State.ASKING, State.RUNNING, State.SETTLING)
EVERYTHING = 1 << 20
PIECE = st.integers(1, 40) | st.just(EVERYTHING)


class Direction:
    """One way of the wire: what was said, the bytes under way, what was heard."""

    def __init__(
        self, speaker: ForwarderConnection | ReceiverConnection, listener: ForwarderConnection | ReceiverConnection
    ) -> None:
        self.speaker, self.listener = speaker, listener
        self.said: list[m.Message] = []
        self.heard: list[m.Heard] = []
        self.under_way = bytearray()

    def say(self, message: m.Message) -> None:
        self.under_way += b"".join(self.speaker.send(message))
        self.said.append(message)

    def deliver(self, size: int) -> Sequence[m.Heard]:
        piece = bytes(self.under_way[:size])
        del self.under_way[:size]
        events: Sequence[m.Heard] = self.listener.receive_data(piece) if piece else []
        self.heard += events
        return events

    def has(self, kind: type[m.Message], messages: str) -> bool:
        return any(isinstance(message, kind) for message in getattr(self, messages))


class Conversation(RuleBasedStateMachine):
    """Both sides say whatever they may say; neither ever finds fault with the other."""

    @initialize(window=st.integers(1, m.MAX_WINDOW), opened=st.sampled_from([True, True, True, False]))
    def join(self, window: int, opened: bool) -> None:
        self.forwarder, self.receiver = ForwarderConnection(), ReceiverConnection()
        self.out = Direction(self.forwarder, self.receiver)
        self.back = Direction(self.receiver, self.forwarder)
        self.window = window
        self.unanswered: list[m.Batch] = []
        self.asked: m.OpenRun | None = None
        self.next_seq, self.run, self.token = 0, 0, 0
        self.out.say(HELLO)
        if opened:  # else the opening is cut up like everything else, and takes most of the steps
            self.deliver_to_receiver(EVERYTHING)
            self.welcome()
            self.deliver_to_forwarder(EVERYTHING)
            self.open_run(True)
            self.deliver_to_receiver(EVERYTHING)
            self.answer_open_run(True)
            self.deliver_to_forwarder(EVERYTHING)

    def forwarder_may_start_something(self) -> bool:
        return not self.out.has(m.Goaway, "said") and not self.back.has(m.Goaway, "heard")

    def next_token(self) -> int:
        self.token += 1
        return self.token

    @precondition(lambda self: self.receiver.state is State.GREETED)
    @rule()
    def welcome(self) -> None:
        self.back.say(m.Welcome(1, "session", "cluster", "topic", "id", 1_048_588, self.window, 0))

    @precondition(lambda self: self.forwarder_may_start_something() and self.forwarder.in_flight == 0)
    @precondition(lambda self: self.forwarder.state in (State.READY, State.RUNNING, State.SETTLING))
    @rule(another=st.booleans())
    def open_run(self, another: bool) -> None:
        self.run += another
        self.out.say(m.OpenRun(self.run))

    @precondition(lambda self: self.asked is not None)
    @rule(granted=st.booleans())
    def answer_open_run(self, granted: bool) -> None:
        assert self.asked is not None
        self.back.say(run_of(self.asked.run) if granted else m.Nack(-1, "unavailable"))
        self.asked = None

    @precondition(lambda self: self.forwarder.can_send_batch)
    @rule(payload=st.binary(max_size=60))
    def send_batch(self, payload: bytes) -> None:
        self.out.say(m.Batch(self.next_seq, self.run, 1, memoryview(payload)))
        self.next_seq += 1

    @precondition(lambda self: self.unanswered)
    @rule(stored=st.booleans())
    def answer_batch(self, stored: bool) -> None:
        seq = self.unanswered.pop(0).seq
        self.back.say(m.Ack(seq, 0, seq) if stored else m.Nack(seq, "unavailable"))

    @precondition(lambda self: self.forwarder.state in LIVE)
    @rule()
    def forwarder_pings_and_reports(self) -> None:
        self.out.say(m.Ping(self.next_token()))
        self.out.say(m.Report("http", "boot", self.next_seq, 0, 0, 0, 0))

    @precondition(lambda self: self.receiver.state in LIVE)
    @rule()
    def receiver_pings(self) -> None:
        self.back.say(m.Ping(self.next_token()))

    @precondition(lambda self: self.forwarder.state in LIVE and self.next_seq > 2)
    @rule()
    def forwarder_leaves(self) -> None:
        self.out.say(m.Goaway("rotation"))

    @precondition(lambda self: self.receiver.state in LIVE and self.next_seq > 2)
    @rule()
    def receiver_leaves(self) -> None:
        self.back.say(m.Goaway("stop"))

    @rule(size=PIECE)
    def deliver_to_receiver(self, size: int) -> None:
        for message in self.out.deliver(size):
            if isinstance(message, m.Batch):
                self.unanswered.append(message)
            elif isinstance(message, m.OpenRun):
                self.asked = message
            elif isinstance(message, m.Ping):
                self.back.say(m.Pong(message.token))

    @rule(size=PIECE)
    def deliver_to_forwarder(self, size: int) -> None:
        for message in self.back.deliver(size):
            if isinstance(message, m.Ping):
                self.out.say(m.Pong(message.token))

    @invariant()
    def what_is_heard_is_what_was_said_in_its_order(self) -> None:
        for direction in (self.out, self.back):
            assert direction.heard == direction.said[: len(direction.heard)]

    @invariant()
    def the_window_is_kept(self) -> None:
        assert len(self.unanswered) == self.receiver.in_flight
        assert 0 <= self.receiver.in_flight <= self.forwarder.in_flight <= self.window

    def teardown(self) -> None:
        """When nothing is under way any more, both sides know the same."""
        if not hasattr(self, "out"):
            return
        while self.out.under_way or self.back.under_way:
            self.deliver_to_receiver(EVERYTHING)
            self.deliver_to_forwarder(EVERYTHING)
        assert self.out.heard == self.out.said
        assert self.back.heard == self.back.said
        assert self.forwarder.state is self.receiver.state
        assert self.forwarder.in_flight == self.receiver.in_flight == len(self.unanswered)
        for side in (self.forwarder, self.receiver):
            assert side.receive_data(b"") == []
            assert side.state is State.CLOSED


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
