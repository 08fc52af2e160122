"""One link's life: identify and authorise the forwarder, serve the link, end it.

Two things run at once: messages are read as they arrive, so that a PING never waits for a batch; batches are stored one
at a time (storing.py). The session keeps no state that a restart could lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import structlog

from logreceiver.config import ReceiverConfig
from logreceiver.links.authorisation import Denied, Permit, Verdict, authorise
from logreceiver.links.conduct import Conduct
from logreceiver.links.guest import Guest
from logreceiver.links.hearing import CALM_READ_BYTES, Hearing
from logreceiver.links.shared import Shared
from logreceiver.links.standing import overdue, standing
from logreceiver.links.storing import Storing
from logreceiver.posture import OpenLink
from streams.config.kinds import STREAM, STREAM_RULE
from streams.errors import (
    Code,
    Flooded,
    LinkError,
    LocalProtocolError,
    PolicyViolation,
    ProtocolError,
    RemoteProtocolError,
    SinkUnavailable,
)
from streams.security import handshakes, modes, stacks
from streams.security.revocation import Revoked
from streams.security.transport import Link
from streams.wire import messages as m
from streams.wire.connection import ReceiverConnection, error_message

RETIRE_SECONDS = 4.0
"""How long a forwarder that is asked to leave has for what is under way; with the rest, an end comes within 5 s."""
CUT_SECONDS = 1.0
"""How long one that is shut out has for the answer to the batch that the sink was given."""


class Session:
    """Serves one link until it ends. Whatever the peer does, `run` does not raise."""

    def __init__(self, link: Link, shared: Shared) -> None:
        self._link = link
        self._shared = shared
        self._connection = ReceiverConnection()
        self._ended: asyncio.Future[ProtocolError] = asyncio.get_running_loop().create_future()
        """Set by `end`: the error to end the link with."""
        self._loop = asyncio.get_running_loop()
        self._guest: Guest | None = None
        self._storing: Storing | None = None
        self._retiring = False
        """True once the forwarder was asked to leave."""
        self.served = asyncio.Event()
        """Set once the sink gets nothing more of it."""
        self._age_share = random.uniform(0.9, 1.0)  # noqa: S311 — links do not all end at once
        self._handshake_observed = False
        """A handshake counts once, and under its stream if it gets that far."""
        self.log = structlog.get_logger("logreceiver.session").bind(peer=link.peer)
        link.read_at_most(CALM_READ_BYTES, inbox_bytes=0)

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the link to its end."""
        try:
            await self._sit_out()
            hello = await self._first_message()
            await self._shared.greetings.take(self._link.host)  # thousands of handshakes may end at once
            await self._serve(await self._welcome(hello))
        except ProtocolError as error:
            await self._refuse(error)
        except Flooded as error:
            await self._refuse(RemoteProtocolError(Code.TOO_FAST, str(error)))
        except (LinkError, ConnectionError) as error:
            reason = str(error)
            self._say("link lost", lambda more: self.log.info("link lost", reason=reason, more=more))
        finally:
            self.served.set()
            self._observe_handshake()
            self._leave()
            await self._link.close()

    def end(self, code: Code, text: str) -> None:
        """Ask the session to stop at once and to send this error to the forwarder."""
        if not self._ended.done():
            self._ended.set_result(ProtocolError(code, text))

    def judge(self, config: ReceiverConfig, revoked: Revoked) -> Verdict | None:
        """Why the link has to end under these rules; None if it may stay."""
        run_topic = "" if self._storing is None else self._storing.topic
        return standing(self._link.facts, self._guest, config, revoked, run_topic=run_topic)

    def overdue(self) -> Verdict | None:
        """Why the link has to end by now, whatever the rules; None if it may stay, or was asked to leave already."""
        if self._retiring:
            return None
        oldest = self._shared.config.limits.max_link_age_seconds * self._age_share
        return overdue(self._link.facts, self.age, oldest=oldest)

    def carry_out(self, verdict: Verdict) -> None:
        """End the link, and tell the forwarder why.

        One that is shut out gets the answer to what the sink was given, for at most CUT_SECONDS. Another is asked to
        leave, and what is under way is taken for at most RETIRE_SECONDS: so no batch is left uncertain.
        """
        code, text = verdict.code, verdict.text
        if not verdict.at_once:
            self._retiring = True
            self.go_away(text, RETIRE_SECONDS)
            self._loop.call_later(RETIRE_SECONDS, self.end, code, text)
        elif self._storing is not None:
            self._storing.finish(lambda: self.end(code, text))
            self._loop.call_later(CUT_SECONDS, self.end, code, text)
        else:
            self.end(code, text)

    def go_away(self, reason: str, grace_seconds: float) -> None:
        """Ask the forwarder to send no new batches here."""
        if self._guest is not None:
            with contextlib.suppress(LocalProtocolError):  # the link may just have failed
                self._send(m.Goaway(reason, int(grace_seconds * 1000)))

    async def turn_away(self, code: Code, text: str) -> None:
        """Close a link that was never served."""
        self._observe_handshake()
        await self._refuse(ProtocolError(code, text))
        await self._link.close()

    @property
    def guest(self) -> Guest | None:
        """Who is on the link; None until it was welcomed."""
        return self._guest

    def describe(self) -> dict[str, Any]:
        """A row of `newest_links` in /api/v1/streams; only for a link that was welcomed."""
        assert self._guest is not None
        return {**self._guest.describe(), "age_seconds": round(self.age, 3)}

    def open_link(self) -> OpenLink:
        """The link as the posture counts it; only for one that was welcomed."""
        assert self._guest is not None
        return OpenLink(self._guest.account, self.age, self._guest.facts.certificate_expires)

    @property
    def age(self) -> float:
        """Seconds since the connection was opened."""
        return self._link.age

    @property
    def _conduct(self) -> Conduct:
        """How the identity has behaved, on this link and others."""
        names = self._link.facts.identities
        return self._shared.register.of(names[0] if names else "", time.monotonic())

    async def _sit_out(self) -> None:
        """Whoever has broken a rule, or makes one link after the other, waits before the next one is served."""
        conduct, now = self._conduct, time.monotonic()
        most = self._shared.config.limits.max_links_per_identity
        if seconds := max(conduct.penalty(now), conduct.early_link(most, now)):
            self._link.hold(True)
            await asyncio.wait({self._ended}, timeout=seconds)
            self._link.hold(False)

    def _say(self, event: str, write: Callable[[int], None]) -> None:
        """A line that this identity can cause as often as it likes."""
        self._shared.sparing.say((event, self._link.facts.identities[:1]), write)

    async def _first_message(self) -> m.Hello:
        try:
            async with asyncio.timeout(self._shared.config.limits.hello_seconds):
                while True:
                    data = await self._link.receive()
                    if not data:
                        raise LinkError("closed before HELLO")
                    for event in self._connection.receive_data(data):
                        if isinstance(event, m.Hello):
                            return event
                        raise LinkError(f"{type(event).__name__} instead of HELLO")
        except TimeoutError:
            raise ProtocolError(Code.TIMEOUT, "no HELLO within the time limit") from None

    async def _welcome(self, hello: m.Hello) -> Guest:
        """Raises ProtocolError if the peer may not write this stream, or not over a link as weak as this."""
        self.log = self.log.bind(stream=hello.stream, mode=hello.mode)
        shared, facts = self._shared, self._link.facts
        if hello.version != m.VERSION:
            raise ProtocolError(Code.BAD_VERSION, f"this receiver speaks version {m.VERSION}, not {hello.version}")
        permit = self._authorise(hello)
        self._check_name(hello)
        label = shared.metrics.stream_label(hello.stream)  # after the permit: a refused name becomes no label
        self._check_mode(hello, label)
        self._observe_handshake(label, hello.mode)
        try:
            topic = await shared.sink.find(permit.topic)
        except SinkUnavailable as error:
            if not (hello.patient and error.code is Code.UNAVAILABLE):
                raise ProtocolError(error.code, str(error)) from error
            topic = None  # the forwarder asks, with patience, when it is back
        if self._authorise(hello) != permit:  # a reload meanwhile
            raise ProtocolError(Code.NOT_ALLOWED, "the rules have changed; greet again")
        account = shared.posture.opened(hello.stream, permit.identity, facts)
        guest = self._guest = Guest(hello, permit.identity, facts, self._link.peer, permit.topic, label, account)
        if not hello.is_probe:
            self._supersede(guest)  # not earlier: a link that is refused must not end a good one
        shared.metrics.links.labels(label, facts.group).inc()
        self._send(
            m.Welcome(
                m.VERSION,
                guest.session_id,
                shared.sink.cluster_id,
                permit.topic,
                "" if topic is None else topic.topic_id,  # it is not made yet, or not known
                0 if topic is None else topic.max_message_bytes,
                m.MAX_WINDOW,
                int(time.time() * 1000),
                int(shared.config.sink.produce_most_seconds * 1000),
            )
        )
        self._say(
            "link opened",
            lambda more: self.log.info(
                "link opened",
                identity=guest.identity,
                group=facts.group,
                version=facts.version,
                cipher=facts.cipher,
                topic=permit.topic,
                more=more,
            ),
        )
        return guest

    def _check_name(self, hello: m.Hello) -> None:
        """A pattern may allow any name: one that a forwarder can have, and not ever more of them."""
        most = self._shared.config.limits.max_streams_per_identity
        if not STREAM.fullmatch(hello.stream):
            raise ProtocolError(Code.NOT_ALLOWED, f"{hello.stream!r} is no name of a stream: {STREAM_RULE}")
        if not self._conduct.may_use(hello.stream, most):
            raise ProtocolError(Code.NOT_ALLOWED, f"it has {most} streams here: limits.max_streams_per_identity")

    def _authorise(self, hello: m.Hello) -> Permit:
        config, names = self._shared.config, self._link.facts.identities
        try:
            return authorise(config.allow, names, hello.stream, hello.mode, deny=config.deny, reserved=config.reserved)
        except Denied as denied:
            raise ProtocolError(denied.code, str(denied)) from denied

    def _observe_handshake(self, stream: str = "", mode: str = "") -> None:
        """Observe it once: when the stream is known, or when the link ends without one."""
        if not self._handshake_observed:
            self._handshake_observed = True
            self._shared.metrics.observe_handshake(self._link.facts, stream=stream, mode=mode, role="receiver")

    def _check_mode(self, hello: m.Hello, label: str) -> None:
        """Refuse a link that is weaker than the stream demands, before the first byte of data."""
        mode = modes.MODES.get(hello.mode)
        if mode is None:
            raise ProtocolError(Code.POLICY, f"unknown mode {hello.mode!r}")
        mode = stacks.demanded(mode, self._shared.config.tls)
        try:
            handshakes.judge(mode, self._link.facts, self._shared.metrics, self.log, stream=label)
        except PolicyViolation as violation:
            raise ProtocolError(Code.POLICY, str(violation)) from violation

    def _supersede(self, guest: Guest) -> None:
        if self._shared.boots.alternate(guest.key, guest.hello.boot_id):
            self._shared.metrics.clones_suspected.labels(guest.label).inc()
            self.log.error(
                "clone suspected",
                identity=guest.identity,
                forwarder_id=guest.hello.forwarder_id,
                reason="two boots of one forwarder take turns",
                remedy="check whether its state directory was copied",
            )
        if (older := self._shared.sessions.get(guest.key)) is not None:
            older.end(Code.SUPERSEDED, "a newer link of the same forwarder and stream took over")
        self._shared.sessions[guest.key] = self

    def _leave(self) -> None:
        if (guest := self._guest) is None:
            return
        if self._shared.sessions.get(guest.key) is self:  # a newer session may have taken its place
            del self._shared.sessions[guest.key]
        self._shared.metrics.links.labels(guest.label, guest.facts.group).dec()
        self._say("link closed", lambda more: self.log.info("link closed", more=more))

    async def _refuse(self, error: ProtocolError) -> None:
        facts = self._link.facts
        self._say(
            f"link refused: {error.code}",
            lambda more: self.log.warning(
                "link refused",
                code=str(error.code),
                reason=error.text,
                identities=list(facts.identities),
                group=facts.group,
                authentication=facts.authentication,
                more=more,
            ),
        )
        self._shared.metrics.refused_links.labels(str(error.code)).inc()
        if isinstance(error, RemoteProtocolError):
            self._conduct.breached(time.monotonic())
        with contextlib.suppress(LocalProtocolError):
            self._send(error_message(error))

    def _send(self, message: m.Message) -> None:
        self._link.write(*self._connection.send(message))

    # -- serving -----------------------------------------------------------------------------------------------

    async def _serve(self, guest: Guest) -> None:
        if self._ended.done():  # it was shut out while it was welcomed
            raise self._ended.result()
        storing = self._storing = Storing(guest, self._shared, self._send, self._link.drain, self.log)
        hearing = Hearing(self._link, self._connection, guest.identity, self._shared, self._send)
        reader = asyncio.create_task(hearing.read(storing))
        worker = asyncio.create_task(storing.work())
        try:
            await hearing.watch(storing, (reader, worker, self._ended))
            if self._ended.done():  # before the tasks' own ends: the forwarder should hear why
                raise self._ended.result()
            for task in (reader, worker):
                if task.done():
                    task.result()
        finally:
            for task in (reader, worker):
                task.cancel()
            await asyncio.gather(reader, worker, return_exceptions=True)
            self._connection.forget()  # before its memory counts as free: closing the link takes a while
            storing.memory.close()
            self._storing = None
            del hearing, reader, worker, task  # an error that one of them raised would hold them, and they the link
