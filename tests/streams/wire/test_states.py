"""Every pair of state and message, for both sides, as speaker and as listener.

The grids are written out here once more, by hand: a slip in the product's tables shows as a difference.
"""

from __future__ import annotations

import pytest

from streams.errors import Code, LocalProtocolError, RemoteProtocolError
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, ReceiverConnection, State
from tests.streams.wire.joined import HELLO, WELCOME, Wire, batch, frame_of, in_state, run_of

# "=" stays, "." is refused, a word is the next state
FORWARDER_SAYS = """
            start    greeted  ready    asking   running  settling failed   closed
  Hello     greeted  .        .        .        .        .        .        .
  Welcome   .        .        .        .        .        .        .        .
  OpenRun   .        .        asking   .        asking   asking   .        .
  Run       .        .        .        .        .        .        .        .
  Batch     .        .        .        .        =        .        .        .
  Ack       .        .        .        .        .        .        .        .
  Nack      .        .        .        .        .        .        .        .
  Report    .        .        =        =        =        =        .        .
  Ping      .        .        =        =        =        =        .        .
  Pong      .        .        =        =        =        =        .        .
  Goaway    .        .        =        =        =        =        .        .
  Error     closed   closed   closed   closed   closed   closed   closed   .
"""
RECEIVER_SAYS = """
            start    greeted  ready    asking   running  settling failed   closed
  Hello     .        .        .        .        .        .        .        .
  Welcome   .        ready    .        .        .        .        .        .
  OpenRun   .        .        .        .        .        .        .        .
  Run       .        .        .        running  .        .        .        .
  Batch     .        .        .        .        .        .        .        .
  Ack       .        .        .        .        =        =        .        .
  Nack      .        .        .        ready    settling =        .        .
  Report    .        .        .        .        .        .        .        .
  Ping      .        .        =        =        =        =        .        .
  Pong      .        .        =        =        =        =        .        .
  Goaway    .        .        =        =        =        =        .        .
  Error     closed   closed   closed   closed   closed   closed   closed   .
"""
KINDS: dict[str, type[m.Message]] = {
    kind.__name__: kind
    for kind in (
        m.Hello,
        m.Welcome,
        m.OpenRun,
        m.Run,
        m.Batch,
        m.Ack,
        m.Nack,
        m.Report,
        m.Ping,
        m.Pong,
        m.Goaway,
        m.Error,
    )
}

Cell = tuple[State, str, State | None]


def cells(grid: str) -> list[Cell]:
    header, *rows = [line.split() for line in grid.strip().splitlines()]
    states = [State(name) for name in header]
    found: list[Cell] = []
    for kind, *marks in rows:
        for state, mark in zip(states, marks, strict=True):
            found.append((state, kind, None if mark == "." else state if mark == "=" else State(mark)))
    return found


def sample(kind: str, state: State) -> tuple[m.Message, int]:
    """A message that only the state can forbid, and how many batches are in flight for it."""
    answered = 1 if state is State.SETTLING else 0
    if kind == "Ack":
        return m.Ack(answered, 0, 0), 1
    if kind == "Nack":
        return m.Nack(-1 if state is State.ASKING else answered, "unavailable"), 1
    plain: dict[str, m.Message] = {
        "Hello": HELLO,
        "Welcome": WELCOME,
        "OpenRun": m.OpenRun(1),
        "Run": run_of(1),
        "Batch": batch(answered),
        "Report": m.Report("http", "boot", 0, 0, 0, 0, 0),
        "Ping": m.Ping(1),
        "Pong": m.Pong(1),
        "Goaway": m.Goaway("rotation"),
        "Error": m.Error("internal"),
    }
    return plain[kind], 0


def name(cell: Cell) -> str:
    return f"{cell[1]} in {cell[0].value}"


def sides(wire: Wire, speaker: str) -> tuple[ForwarderConnection | ReceiverConnection, ...]:
    pair = (wire.forwarder, wire.receiver)
    return pair if speaker == "forwarder" else pair[::-1]


ALL = [("forwarder", cell) for cell in cells(FORWARDER_SAYS)] + [("receiver", cell) for cell in cells(RECEIVER_SAYS)]
NAMES = [f"{speaker} {name(cell)}" for speaker, cell in ALL]


def test_the_grids_name_every_state_and_every_message() -> None:
    assert set(KINDS.values()) == set(m.Message.__args__)
    for grid in (FORWARDER_SAYS, RECEIVER_SAYS):
        assert {(state, kind) for state, kind, _ in cells(grid)} == {(state, kind) for state in State for kind in KINDS}


@pytest.mark.parametrize(("speaker", "cell"), ALL, ids=NAMES)
def test_a_side_says_what_its_state_allows_and_nothing_else(speaker: str, cell: Cell) -> None:
    state, kind, following = cell
    message, in_flight = sample(kind, state)
    says, _ = sides(in_state(state, in_flight=in_flight), speaker)
    assert says.state is state
    if following is None:
        with pytest.raises(LocalProtocolError) as error:
            says.send(message)
        assert error.value.code is Code.UNEXPECTED_MESSAGE
    else:
        assert b"".join(says.send(message)) == frame_of(message)
    assert says.state is (following or state)


@pytest.mark.parametrize(("speaker", "cell"), ALL, ids=NAMES)
def test_a_side_hears_what_the_other_may_have_said_and_nothing_else(speaker: str, cell: Cell) -> None:
    state, kind, following = cell
    message, in_flight = sample(kind, state)
    _, hears = sides(in_state(state, in_flight=in_flight), speaker)
    over = state in (State.FAILED, State.CLOSED)
    if (speaker, kind, state) == ("forwarder", "Batch", State.SETTLING):
        following = State.SETTLING  # it crossed the NACK on the wire
    if following is None or over:
        with pytest.raises(RemoteProtocolError) as error:
            hears.receive_data(frame_of(message))
        assert error.value.code is Code.UNEXPECTED_MESSAGE
        assert hears.state is (state if over else State.FAILED)
    else:
        assert hears.receive_data(frame_of(message)) == [message]
        assert hears.state is following
