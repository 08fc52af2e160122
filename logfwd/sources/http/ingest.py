"""`POST /ingest/STREAM`: from the head of a request to its answer.

    admission   the stream is served at this address, the client may write it, its type and coding are known, and room
                for the body is reserved before it is read, growing as it comes and as it is decompressed
    check       the whole body is cut into records; where the stream refuses invalid ones, none may be invalid
    key         what an earlier attempt with this Idempotency-Key has stored is skipped; another body is refused
    hand-over   from here on only the outcome answers
    answer      DONE 200; FAILED 503; UNKNOWN: the connection is closed without an answer

Large bodies are joined, decompressed and checked on a thread (aside.py), so that other streams are not held up.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from itertools import repeat
from typing import TypeVar

from logfwd.sources.aside import Work, at_once
from logfwd.sources.front import Admission, Front, Outcome, Request
from logfwd.sources.http import body, coding
from logfwd.sources.http.answers import Answer, Refused, malformed, stored, too_large, try_again
from logfwd.sources.http.body import BodyType, CountInvalid, Kind, Part
from logfwd.sources.http.connection import Body, Head, stopping
from logfwd.sources.http.settings import Served
from logfwd.sources.http.tokens import Tokens
from logfwd.sources.keys import Key, key_hash
from logfwd.sources.position import Block, Progress
from streams.config.units import KIB, MIB, show_size
from streams.errors import NoRoom, NotServed, SpoolError

PATH = "/ingest/"
MAX_KEY_BYTES = 255
INLINE_BYTES = 16 * KIB
"""Bodies up to this size are handled on the event loop: faster than the way to a thread and back."""
LINES_SHARE = 32
"""Lines that are only cut, and hashed where there is a key, cost far less than JSON that is looked into."""
JOINED_BYTES = MIB
"""A larger body is joined on the thread: to take so much memory, and to fill it, takes the loop some milliseconds."""

T = TypeVar("T")


class Ingest:
    """Answers requests for the streams of one forwarder. `count`: called with stream and status ("none") of each."""

    def __init__(self, front: Front, count: Callable[[str, str], None], count_invalid: CountInvalid) -> None:
        self._front, self._count, self._count_invalid = front, count, count_invalid
        self._served: Mapping[str, Served] = {}
        self._tokens: dict[str, Tokens] = {}
        self.is_stopping = False

    def serve(self, streams: Iterable[Served]) -> None:
        """Serve these streams from now on, and no others."""
        self._served = {each.stream: each for each in streams}
        files = {each.stream: each.settings.token_file for each in streams}
        self._tokens = {stream: Tokens(path) for stream, path in files.items() if path is not None}

    async def answer(self, address: str, head: Head, content: Body) -> Answer | None:
        """What a request at this address is answered; None if its outcome is unknown."""
        served: Served | None = None
        answer: Answer | None
        try:
            served = self._route(address, head)
            answer = await self._ingest(served, head, content)
        except Refused as refused:
            answer = refused.answer
        except NoRoom as error:
            answer = try_again(429, "no_room", str(error)).answer
        except NotServed as error:
            answer = (stopping() if self.is_stopping else try_again(503, "not_served", str(error))).answer
        except SpoolError as error:
            answer = try_again(503, "spool", str(error)).answer
        self._count(served.stream if served is not None else "", str(answer.status) if answer is not None else "none")
        return answer

    def _route(self, address: str, head: Head) -> Served:
        if self.is_stopping:
            raise stopping()
        path = head.path.partition("?")[0]
        name = path.removeprefix(PATH)
        served = self._served.get(name)
        if name == path or served is None or served.settings.address != address:
            raise Refused(404, "not_found", f"nothing is served at {path}; use POST {PATH}STREAM")
        if head.method != "POST":
            raise Refused(405, "method", "use POST", headers=((b"allow", b"POST"),))
        return served

    async def _ingest(self, served: Served, head: Head, content: Body) -> Answer | None:
        client = self._client(served, head)
        kind, how = body.body_type(head.header("content-type")), coding.check(head.header("content-encoding"))
        key = _key(head)
        limit = served.settings.max_body_bytes
        if (head.content_length or 0) > limit:
            raise too_large(f"the body is larger than max_body_bytes, {show_size(limit)}")
        tally = _Tally(key_hash(served.stream, client, key) if key else b"", served.settings.key_window_seconds)
        with self._front.admit(served.stream, head.content_length or 0) as admission:
            admission.release()  # it would fit; but a client that only announces a body holds no room
            data = await self._joined(await _read(content, admission, limit))
            if how:
                data = await self._decompress(data, how, admission, limit)
            if key:
                async with admission.keyed(tally.hashed) as known:
                    if known is not None and await self._is_stored(known, data, kind):
                        return stored(known.accepted, known.invalid, repeat=True)
                    tally.begin(known)
                    request = await self._hand_over(served, data, kind, tally, admission)
            else:
                request = await self._hand_over(served, data, kind, tally, admission)
            del data  # its records are in blocks now
            outcome = await request.outcome()
        if outcome is Outcome.UNKNOWN:
            return None
        if outcome is Outcome.FAILED:
            raise try_again(503, "not_stored", "nothing of it was stored")
        return stored(tally.accepted, tally.invalid)

    def _client(self, served: Served, head: Head) -> str:
        """A name for the client; refuses one that may not write the stream."""
        tokens, patterns = self._tokens.get(served.stream), served.settings.identities
        scheme, _, token = head.header("authorization").partition(" ")
        if tokens and scheme.lower() == "bearer" and (client := tokens.client(token.strip())) is not None:
            return client
        for identity in head.identities:
            if any(fnmatchcase(identity, pattern) for pattern in patterns):
                return identity
        if tokens is not None:
            challenge = ((b"www-authenticate", b'Bearer realm="logfwd"'),)
            raise Refused(401, "unauthorised", "send Authorization: Bearer TOKEN with a valid token", headers=challenge)
        if patterns:
            names = ", ".join(head.identities) or "no URI or DNS name"
            raise Refused(403, "not_allowed", f"the certificate has {names}; none of source.identities matches")
        return head.identities[0] if head.identities else ""

    async def _is_stored(self, known: Key, data: bytes, kind: BodyType) -> bool:
        """True if an earlier request has stored all of this body; refuses another body than that request's."""
        digests = body.digests(data, kind, [known.progress])
        digest = await self._step(len(data), partial(next, digests))
        if len(data) < known.progress or digest != known.digest or known.total not in (None, len(data)):
            raise Refused(422, "key_reused", "this Idempotency-Key was used for another body")
        return known.finished

    async def _hand_over(
        self, served: Served, data: bytes, kind: BodyType, tally: _Tally, admission: Admission
    ) -> Request:
        is_looked_into = kind.kind is not Kind.LINES or served.refuses_invalid
        size = len(data) if is_looked_into else len(data) // LINES_SHARE
        blocks = await self._done(size, _blocks(served, data, kind, tally, self._count_invalid))
        if self.is_stopping:
            raise stopping()
        return admission.hand_over(blocks, tally.hashed or None)

    async def _decompress(self, data: bytes, how: str, admission: Admission, limit: int) -> bytes:
        size, pieces = 0, list[bytes | bytearray]()
        steps = coding.decompressed(data, how, limit)
        while (piece := await self._step(len(data) + size, partial(next, steps, None))) is not None:
            admission.grow(len(piece))
            size += len(piece)
            pieces.append(piece)
        admission.release()
        admission.grow(size)  # nothing else runs in between
        return await self._joined(pieces)

    async def _joined(self, pieces: list[bytes | bytearray]) -> bytes:
        size = sum(map(len, pieces))
        return b"".join(pieces) if size <= JOINED_BYTES else await self._front.aside.run(_joined(pieces, size))

    async def _step(self, size: int, call: Callable[[], T]) -> T:
        """Call what lets other threads run and costs more the larger this size is: on the thread if it is large."""
        return call() if size <= INLINE_BYTES else await self._front.aside.call(call)

    async def _done(self, size: int, work: Work[T]) -> T:
        """The result of work that costs more the larger this size is."""
        return at_once(work) if size <= INLINE_BYTES else await self._front.aside.run(work)


def _key(head: Head) -> bytes:
    key = head.header("idempotency-key").strip().encode("latin-1")
    if len(key) > MAX_KEY_BYTES:
        raise malformed(f"Idempotency-Key is longer than {MAX_KEY_BYTES} bytes")
    return key


async def _read(content: Body, admission: Admission, limit: int) -> list[bytes | bytearray]:
    pieces, size = list[bytes | bytearray](), 0
    while piece := await content.piece():
        size += len(piece)
        if size > limit:
            raise too_large(f"the body is larger than max_body_bytes, {show_size(limit)}")
        admission.grow(len(piece))
        pieces.append(piece)
    return pieces


def _joined(pieces: list[bytes | bytearray], size: int) -> Work[bytes]:
    """Pieces of this size together, each let go of once it is copied."""
    joined = io.BytesIO(bytes(size))
    pieces.reverse()
    while pieces:
        joined.write(pieces.pop())
        yield
    return joined.getvalue()


class _Tally:
    """What is stored of a request, block by block, and the answer that this makes."""

    def __init__(self, hashed: bytes, window_seconds: float) -> None:
        self.hashed = hashed
        self.accepted = self.invalid = self.start = 0
        self._window_seconds = window_seconds

    def begin(self, known: Key | None) -> None:
        """Continue after what an earlier attempt stored."""
        if known is not None:
            self.accepted, self.invalid, self.start = known.accepted, known.invalid, known.progress

    def progress(self, end: int, digest: bytes, total: int | None) -> Progress:
        """For the block that ends at this offset of the body."""

        def stored(records: int, invalid: int) -> tuple[bytes, Key] | None:
            self.accepted += records
            self.invalid += invalid
            if not self.hashed:
                return None
            expires = time.time() + self._window_seconds
            return self.hashed, Key(end, total, self.accepted, self.invalid, digest, expires)

        return stored


def _blocks(
    served: Served, data: bytes, kind: BodyType, tally: _Tally, count_invalid: CountInvalid
) -> Work[list[Block]]:
    """The blocks of a body after what is stored already; refuses an invalid record if the stream does."""
    found, records, limit = list[Part](), 0, served.max_record_bytes
    for part in body.parts(data, kind, start=tally.start, block_bytes=served.block_bytes, max_record_bytes=limit):
        if served.refuses_invalid and not tally.start:
            if (index := body.first_invalid(part, limit, count_invalid)) is not None:
                raise _invalid(records + index, limit)
            records += body.record_count(part)
        found.append(part)
        yield
    if tally.hashed and not found:
        found = [Part(b"", len(data))]  # so that the key is stored
    digests = body.digests(data, kind, (part.end for part in found)) if tally.hashed else repeat(b"")
    now_ms, blocks = time.time_ns() // 1_000_000, list[Block]()
    for part, digest in zip(found, digests, strict=False):
        progress = tally.progress(part.end, digest, part.end if part.end == len(data) else None)
        blocks.append(Block(part.data, now_ms, ends=part.ends, progress=progress))
        yield
    return blocks


def _invalid(index: int, limit: int) -> Exception:
    text = f"record {index} (counted from 0) is not a JSON object of at most {show_size(limit)}; nothing is stored"
    return Refused(400, "invalid_record", text, index=index)
