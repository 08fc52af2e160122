"""The messages of protocol version 1, as msgspec Structs: one msgpack array each, number first.

A message's tag is its number on the wire; later versions may append fields, which earlier ones ignore. Strings are at
most `MAX_STRING_BYTES` long. An integer that means "none" is −1, as in Kafka.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

VERSION = 1
PROBE_ID = "probe-"
"""What the id of a forwarder begins with that only wants to know whether it would be welcome."""
MAX_STRING_BYTES = 255
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_FRAME_BYTES_BEFORE_WELCOME = 64 * 1024
MAX_WINDOW = 5


def fit(text: str) -> str:
    """As much of a text as a message may carry. What UTF-8 cannot encode (half a file name, say) becomes "?"."""
    return text.encode(errors="replace")[:MAX_STRING_BYTES].decode(errors="ignore")


Text = Annotated[str, msgspec.Meta(max_length=MAX_STRING_BYTES)]
Token = Annotated[bytes, msgspec.Meta(max_length=MAX_STRING_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Number = Annotated[int, msgspec.Meta(ge=-1)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Forwarder: opens the link for one stream. Its identity comes from its certificate, never from this message."""

    version: Count
    forwarder_id: Text
    boot_id: Text
    stream: Text
    mode: Text
    twin_of: Text = ""
    patient: bool = False
    """Whether it takes a WELCOME of a receiver that cannot reach its sink: then only RUN has the ids of both."""

    @property
    def is_probe(self) -> bool:
        """Whether it opens no run: such a link takes the place of no other, and counts for no alarm."""
        return self.forwarder_id.startswith(PROBE_ID)


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Receiver: the stream is accepted, and this is where it goes."""

    version: Count
    session_id: Text
    cluster_id: Text
    topic: Text
    topic_id: Text
    max_message_bytes: Count
    window: Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW)]
    server_time_ms: Count
    produce_ms: Count = 0
    """How long a batch may be under way from here to the sink, whoever waits for it; 0 from who does not say."""


class OpenRun(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Forwarder: asks for the stamp of a new run (producer_id −1), or what the sink has stored of an existing one.

    The receiver may hold its answer for `patience_ms` until the partition can be written; PINGs go on meanwhile.
    """

    run: Count
    topic: Text = ""
    partition: Number = -1
    producer_id: Number = -1
    producer_epoch: Number = -1
    grant: Token = b""
    patience_ms: Count = 0


class Run(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Receiver: the run's stamp and grant, and what the sink has stored of it (−1: producer unknown).

    A batch of the run that is longer than its topic takes is read past and refused; the forwarder splits it before.
    """

    run: Count
    topic: Text
    topic_id: Text
    partition: Count
    producer_id: Count
    grant: Token
    stored_epoch: Number = -1
    stored_sequence: Number = -1
    max_message_bytes: Count = 0
    """The longest batch that the run's topic takes; 0 from a receiver that does not say."""
    cluster_id: Text = ""
    """That of WELCOME, which may have come before it was known; empty from a receiver that does not say."""


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Forwarder: a stamped record batch. `seq` counts the batches sent on this link, from 0."""

    seq: Count
    run: Count
    record_count: Count
    payload: memoryview


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Receiver: stored. `base_offset` −1: recognised as already stored, its offset no longer known."""

    seq: Count
    partition: Count
    base_offset: Number
    receive_to_sink_us: Count = 0
    sink_us: Count = 0


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Receiver: not acknowledged. `seq` −1 answers the OPEN_RUN under way.

    `uncertain`: the batch may be stored all the same. `permanent`: these bytes will never be stored.
    `stored_meanwhile`: batches that the receiver stored in the partition since it first saw this one refused for its
    records; 0 from a receiver that does not say.
    """

    seq: Number
    code: Text
    uncertain: bool = False
    permanent: bool = False
    text: Text = ""
    stored_meanwhile: Count = 0


class Report(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Forwarder: cumulative totals of the stream, for the ledger."""

    stream: Text
    boot_id: Text
    accepted: Count
    acknowledged: Count
    dropped: Count
    dead_lettered: Count
    resets: Count


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Both: are you there?"""

    token: Count


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Both: yes."""

    token: Count


class Goaway(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Both: no new batches on this link; those under way may still be answered."""

    reason: Text
    grace_ms: Count = 0


class Error(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Both: protocol or policy broken; the link closes after it."""

    code: Text
    text: Text = ""


Message = Hello | Welcome | OpenRun | Run | Batch | Ack | Nack | Report | Ping | Pong | Goaway | Error


class Overlong(msgspec.Struct, frozen=True):
    """What the receiver makes of a Batch that is longer than its run's topic takes: the payload was not kept."""

    seq: int
    run: int
    record_count: int
    payload_bytes: int


Heard = Message | Overlong
