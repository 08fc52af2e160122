"""What a client is answered: a status and a small JSON object, always of the same shape.

200  {"accepted":2,"invalid":0}
else {"error":"…","code":"too_large"}                           and, where it helps, "index" of the record
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

Header = tuple[bytes, bytes]

RETRY_SECONDS = b"1"


class Answer(msgspec.Struct, frozen=True):
    """One response. `close`: the connection ends after it."""

    status: int
    body: bytes
    headers: Sequence[Header] = ()
    close: bool = False

    @property
    def reason(self) -> bytes:
        """The phrase after the status."""
        return HTTPStatus(self.status).phrase.encode()


def stored(accepted: int, invalid: int, *, repeat: bool = False) -> Answer:
    """All records of the request are durable: of this one, or of an earlier one with the same key."""
    headers = ((b"idempotent-replayed", b"true"),) if repeat else ()
    return Answer(200, msgspec.json.encode({"accepted": accepted, "invalid": invalid}), headers)


class Refused(Exception):
    """The request is not taken, and nothing of it is stored; `answer` says why."""

    def __init__(
        self, status: int, code: str, text: str, *, headers: Sequence[Header] = (), close: bool = False, **more: int
    ) -> None:
        super().__init__(text)
        self.answer = Answer(status, msgspec.json.encode({"error": text, "code": code, **more}), headers, close)


def try_again(status: int, code: str, text: str, *, close: bool = False) -> Refused:
    """A refusal that is over soon: 429 or 503."""
    return Refused(status, code, text, headers=((b"retry-after", RETRY_SECONDS),), close=close)


def too_large(text: str) -> Refused:
    """More bytes than the stream takes in one request."""
    return Refused(413, "too_large", text)


def not_supported(text: str) -> Refused:
    """A type or coding of the body that is not known here."""
    return Refused(415, "unsupported", text)


def malformed(text: str) -> Refused:
    """A request that cannot be understood, or a body that is not what its headers say."""
    return Refused(400, "malformed", text)
