"""Every error this project raises on purpose, and the codes that travel on the wire.

    PipelineError
    ├── ConfigError             a configuration cannot be used; carries every problem found, not only the first
    ├── BatchCorrupt            bytes that claim to be a record batch and are not
    ├── ProtocolError           this side ends the link with an ERROR: a refusal, or one of
    │   ├── LocalProtocolError  we were about to break the wire protocol: a bug of ours; nothing was written
    │   └── RemoteProtocolError the peer broke the wire protocol
    ├── LinkError               a link could not be made or was lost; try again
    │   ├── HandshakeFailed     the TLS handshake failed; has the reason on the refusing side, the alert on the other
    │   ├── PolicyViolation     the TLS handshake gave less than the mode demands
    │   ├── Flooded             the peer sends far more than it can have to say
    │   ├── NotListening        nothing listens at any address of the peer
    │   └── LinkRefused         the peer closed the link with an ERROR
    ├── SinkUnavailable         the sink cannot answer now; retriable
    │   └── RunLost             (logreceiver) the sink's state of a run fits none of the batches sent
    ├── LogDamaged              (logreceiver) the embedded log cannot be read on without leaving something out
    ├── SpoolError              the spool cannot keep a promise
    │   ├── SpoolFull           no room within the stream's budget, or on the disk
    │   └── SpoolCorrupt        the file is damaged and was set aside
    ├── NotAdmitted             a client's request was not taken: nothing of it is stored, and it may be sent again
    │   ├── NoRoom              there is no room for it now
    │   └── NotServed           its stream is not configured, is starting, or is stopping
    ├── PkiError                (security/pki.py) a file of the authority cannot be written or used
    ├── ControlUnavailable      (control.py) the control socket cannot be made
    ├── AdminUnavailable        (telemetry/admin.py) the admin address cannot be listened on
    └── NotAnswered             (telemetry/client.py) no program answers at an admin address

The type is for the caller, `Code` for the other end. Exceptions outside this tree are control flow between
neighbouring functions and never leave their room: Replaced, Deleted, BegunAnew, Filled, Compressed, Moved, Refused,
Malformed (logfwd/sources), Damaged and SnapshotUnusable (the embedded log), _TooLarge (the ledger), Denied
(authorisation), _Wrong (toml.py), _Unknown (variables.py), Abort and PeerAlert (our own TLS 1.3).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Code(enum.StrEnum):
    """Why a batch was not stored or a link was closed, as written on the wire."""

    # answers to OPEN_RUN and BATCH (NACK)
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    OUT_OF_ORDER = "out_of_order"
    FENCED = "fenced"
    TOO_LARGE = "too_large"
    CORRUPT = "corrupt"
    INVALID_RECORD = "invalid_record"
    UNAUTHORISED = "unauthorised"
    TOPIC_MISSING = "topic_missing"
    CLOCK = "clock"
    NOT_TRIED = "not_tried"
    NOT_GRANTED = "not_granted"
    UNKNOWN = "unknown"
    # reasons to close a link (ERROR)
    MALFORMED = "malformed"
    FRAME_TOO_LARGE = "frame_too_large"
    UNEXPECTED_MESSAGE = "unexpected_message"
    UNKNOWN_MESSAGE = "unknown_message"
    BAD_SEQUENCE = "bad_sequence"
    BAD_VERSION = "bad_version"
    NOT_ALLOWED = "not_allowed"
    REVOKED = "revoked"
    OVERDUE = "overdue"
    POLICY = "policy"
    TOO_MANY_LINKS = "too_many_links"
    TIMEOUT = "timeout"
    TOO_FAST = "too_fast"
    SUPERSEDED = "superseded"
    INTERNAL = "internal"

    @property
    def sentence(self) -> str:
        return _MEANING[self][1]

    @property
    def retriable(self) -> bool:
        """True where the same bytes may succeed later or elsewhere."""
        return _MEANING[self][0]

    @classmethod
    def parse(cls, text: str) -> Code:
        """A code of a newer peer is UNKNOWN, which is retriable."""
        try:
            return cls(text)
        except ValueError:
            return cls.UNKNOWN


_MEANING: dict[Code, tuple[bool, str]] = {
    Code.UNAVAILABLE: (True, "the sink cannot take batches for this partition now"),
    Code.TIMED_OUT: (True, "the sink did not answer in time; the batch may be stored"),
    Code.OUT_OF_ORDER: (True, "the sequence does not follow what the sink has stored of this run"),
    Code.FENCED: (True, "a newer producer epoch of the same run has been stored"),
    Code.TOO_LARGE: (False, "the batch is larger than the topic accepts"),
    Code.CORRUPT: (False, "the batch failed a check of its header or its CRC"),
    Code.INVALID_RECORD: (False, "the sink refuses the records of this batch"),
    Code.UNAUTHORISED: (True, "the receiver is not permitted to write or read this topic"),
    Code.TOPIC_MISSING: (True, "the topic does not exist"),
    Code.CLOCK: (True, "the sink finds the batch's timestamps too far from its own clock"),
    Code.NOT_TRIED: (True, "a batch before it was refused, so this one was not produced"),
    Code.NOT_GRANTED: (True, "the grant shown is not one that this receiver honours"),
    Code.UNKNOWN: (True, "the sink answered with an error that has no code here"),
    Code.MALFORMED: (True, "the bytes are not a message of this protocol"),
    Code.FRAME_TOO_LARGE: (True, "the frame announces more bytes than the limit"),
    Code.UNEXPECTED_MESSAGE: (True, "the message is not allowed in this state"),
    Code.UNKNOWN_MESSAGE: (True, "the message's number is not known to this version"),
    Code.BAD_SEQUENCE: (True, "the batch does not follow the one before it on this link"),
    Code.BAD_VERSION: (False, "the peer speaks no common version of the protocol"),
    Code.NOT_ALLOWED: (True, "this identity may not write this stream in this mode"),
    Code.REVOKED: (True, "this identity, or its certificate, was shut out"),
    Code.OVERDUE: (True, "the link was as old as a link may get, or the peer's certificate has expired"),
    Code.POLICY: (True, "the TLS link is weaker than the stream's mode demands"),
    Code.TOO_MANY_LINKS: (True, "the receiver has as many links as it allows"),
    Code.TIMEOUT: (True, "the peer did not speak within the time limit"),
    Code.TOO_FAST: (True, "the peer sends more messages than this protocol ever needs"),
    Code.SUPERSEDED: (True, "a newer link of the same forwarder and stream took over"),
    Code.INTERNAL: (True, "the peer had an internal error"),
}


class PipelineError(Exception):
    """Root of this project's own errors."""


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a configuration: where, and what to do about it."""

    path: Path
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.key}: {self.message}" if self.key else f"{self.path}: {self.message}"


class ConfigError(PipelineError):
    """A configuration cannot be used; `problems` lists everything found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class BatchCorrupt(PipelineError):
    """Bytes that claim to be a record batch and are not."""


class ProtocolError(PipelineError):
    """This side ends the link; `code` and `text` go to the peer in an ERROR message, never any record bytes.

    Raised itself for a refusal: an identity without permission, a mode that is not met, a time limit, a newer link.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class LocalProtocolError(ProtocolError):
    """We were about to break the wire protocol, or to speak on a link that has ended. Nothing was written."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the wire protocol."""


class LinkError(PipelineError):
    """A link could not be made, or was lost. Trying again is right."""


class HandshakeFailed(LinkError):
    """The TLS handshake failed. `reason` is a short label fit for a metric; `alert` is the peer's, if any.

    `seen` has the fields of a log line for what is known of the handshake all the same.
    """

    def __init__(self, reason: str, text: str, *, alert: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.alert = alert
        self.seen: Mapping[str, object] = {}


class PolicyViolation(LinkError):
    """The handshake gave less than the stream's mode demands; no data was sent."""


class Flooded(LinkError):
    """The peer sends far more than it can have to say, so this side ended the link."""


class NotListening(LinkError):
    """Every address of the peer refused the connection: it is not running, and asking again costs next to nothing."""


class LinkRefused(LinkError):
    """The peer closed the link with an ERROR message; `code` says why."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"the peer refused: {code}: {text}")
        self.code = code


class SinkUnavailable(PipelineError):
    """The sink cannot answer now. `code` says why, as the forwarder will read it."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class SpoolError(PipelineError):
    """The spool cannot keep a promise."""


class SpoolFull(SpoolError):
    """No room: the stream's budget or the disk is used up."""


class SpoolCorrupt(SpoolError):
    """The spool's file is damaged. It was set aside; it is never repaired in place."""


class NotAdmitted(PipelineError):
    """A request was not taken. Nothing of it is stored; it may be sent again."""


class NoRoom(NotAdmitted):
    """There is no room for it now."""


class NotServed(NotAdmitted):
    """Its stream is not configured, is starting, or is stopping."""


def forget_frames(error: BaseException | None) -> None:
    """Forget where an error and its causes were raised. Whoever keeps an error keeps all that was in use there."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__
