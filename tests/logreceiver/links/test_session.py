"""One link of a receiver, over a link without TLS, against a forwarder and a sink that do what each test says."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from logreceiver.config import Allow, Ledger, Limits, Listener, ReceiverConfig
from logreceiver.links import conduct, hearing
from logreceiver.links.grants import Grants
from logreceiver.links.session import Session
from logreceiver.links.shared import Shared
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks import Kind, Outcome, RunState, TopicInfo
from logreceiver.sinks.settings import LogSink
from streams.config.sections import Tls
from streams.errors import Code, SinkUnavailable
from streams.security.endpoint import Facts
from streams.security.transport import Link
from streams.telemetry.metrics import CollectorRegistry
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection
from tests.support.batches import batch
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.plaintext import FORWARDER, links

M = TypeVar("M", bound=m.Message)
HELLO = m.Hello(m.VERSION, "forwarder-id", "boot", "http", "hybrid")
MODES = ("hybrid", "hybrid-preferred", "pq-auth", "kemtls", "kemtls-pdk")
TLS = Tls(certificate=Path("leaf.pem"), key=Path("leaf.key"), ca=Path("ca.pem"))
CONFIG = ReceiverConfig(
    tls=TLS,
    grant_key_file=Path("grant.key"),
    listener=(Listener(address=":7443"),),
    allow=(Allow(identity="spiffe://test/*", streams=("http", "audit"), modes=MODES),),
    sink=LogSink(directory=Path("log")),
)


@dataclass
class ScriptedSink:
    """Says what the test has prepared, and remembers what it was given."""

    answers: deque[Outcome] = field(default_factory=deque)
    produced: list[tuple[str, int, bytes]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear: `produce` waits."""
    stored: RunState | None = None
    unavailable: SinkUnavailable | None = None
    made: set[str] = field(default_factory=lambda: {"http"})
    """Topics that there are."""
    name: str = "scripted"
    cluster_id: str = "cluster"

    def __post_init__(self) -> None:
        self.open.set()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> Mapping[str, str]:
        return {}

    async def topic(self, name: str) -> TopicInfo:
        if self.unavailable is not None:
            raise self.unavailable
        self.made.add(name)
        return TopicInfo(name, f"id of {name}", 4, 1 << 20)

    async def find(self, name: str) -> TopicInfo | None:
        if self.unavailable is not None:
            raise self.unavailable
        return await self.topic(name) if name in self.made else None

    async def new_producer_id(self) -> int:
        return 7

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        return self.stored

    async def produce(self, topic: str, partition: int, batch: memoryview) -> Outcome:
        self.produced.append((topic, partition, bytes(batch)))
        await self.open.wait()
        return self.answers.popleft() if self.answers else Outcome(Kind.STORED, 10 * (len(self.produced) - 1))


class Forwarder:
    """The other end of the link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.sent = 0
        self._wire = ForwarderConnection()
        self._heard: deque[m.Message] = deque()

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.link.write(*self._wire.send(message))

    async def next(self) -> m.Message:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._heard:
                data = await self.link.receive()
                assert data, "the receiver closed the link"
                self._heard += self._wire.receive_data(data)
        return self._heard.popleft()

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        message = await self.next()
        assert isinstance(message, kind), message
        return message

    async def refused(self, code: Code) -> str:
        """The receiver ends the link with this code; returns its text."""
        error = await self.hear(m.Error)
        assert error.code == code
        assert await self.link.receive() == b""
        return error.text

    async def run(self, hello: m.Hello = HELLO, **asked: Any) -> m.Run:
        """Until a run is open."""
        self.say(hello)
        await self.hear(m.Welcome)
        self.say(m.OpenRun(1, **asked))
        return await self.hear(m.Run)

    def send(self, *made: memoryview, records: int = 10) -> None:
        for payload in made:
            self.say(m.Batch(self.sent, 1, records, payload))
            self.sent += 1


@dataclass
class Serving:
    """A receiver, and the links of its sessions."""

    sink: ScriptedSink
    shared: Shared
    registry: CollectorRegistry
    _stack: contextlib.AsyncExitStack

    async def link(self, facts: Facts = FORWARDER) -> tuple[Forwarder, Session]:
        """A new link, whose session runs."""
        near, far = await self._stack.enter_async_context(links(forwarder=facts))
        serving = Session(far, self.shared)
        task = asyncio.create_task(serving.run())
        self._stack.push_async_callback(self._end, task)
        return Forwarder(near), serving

    @staticmethod
    async def _end(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def total(self, metric: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )


@contextlib.asynccontextmanager
async def serving(config: ReceiverConfig = CONFIG) -> AsyncIterator[Serving]:
    sink = ScriptedSink()
    registry = CollectorRegistry()
    grants = Grants({"k": b"k" * 32})
    shared = Shared(config, sink, grants, ReceiverMetrics(registry))
    async with contextlib.AsyncExitStack() as stack:
        yield Serving(sink, shared, registry, stack)


# -- HELLO ---------------------------------------------------------------------------------------------------------


async def test_a_permitted_stream_is_welcomed_with_its_topic() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        forwarder.say(HELLO)
        welcome = await forwarder.hear(m.Welcome)
        assert (welcome.topic, welcome.topic_id, welcome.cluster_id) == ("http", "id of http", "cluster")
        assert (welcome.max_message_bytes, welcome.window) == (1 << 20, m.MAX_WINDOW)
        assert receiver.total("tls_handshakes_total", stream="http", mode="hybrid", result="ok") == 1


async def test_links_are_welcomed_in_turns() -> None:
    async with serving() as receiver:
        forwarder, session = await receiver.link()
        waits: list[Callable[[], None]] = []
        receiver.shared.greetings.ask = lambda who, work, **_: waits.append(work)  # type: ignore[method-assign]
        forwarder.say(HELLO)
        await eventually(lambda: waits)
        await asyncio.sleep(0.02)
        assert session.guest is None
        waits.pop()()
        await forwarder.hear(m.Welcome)


async def test_a_probe_is_welcomed_takes_no_link_s_place_and_opens_no_run() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        probe, _ = await receiver.link()
        probe.say(replace(HELLO, forwarder_id=f"{m.PROBE_ID}1"))
        await probe.hear(m.Welcome)
        assert len(receiver.shared.sessions) == 1
        probe.say(m.OpenRun(1))
        assert await probe.refused(Code.UNEXPECTED_MESSAGE) == "OPEN_RUN of a probe"
        forwarder.say(m.Ping(1))
        assert await forwarder.hear(m.Pong) == m.Pong(1)


async def test_a_peer_that_says_no_hello_is_not_waited_for() -> None:
    async with serving(replace(CONFIG, limits=Limits(hello_seconds=0.05))) as receiver:
        forwarder, _ = await receiver.link()
        assert "no HELLO" in await forwarder.refused(Code.TIMEOUT)
        assert receiver.total("tls_handshakes_total", stream="", result="ok") == 1


@pytest.mark.parametrize(
    ("changes", "facts", "code", "text"),
    [
        ({"version": 2}, {}, Code.BAD_VERSION, "version 1, not 2"),
        ({"stream": "secrets"}, {}, Code.NOT_ALLOWED, "may not write stream 'secrets'"),
        ({"mode": "classical"}, {}, Code.NOT_ALLOWED, f"in mode {', '.join(MODES)}, not 'classical'"),
        ({}, {"identities": ("spiffe://other/x",)}, Code.NOT_ALLOWED, "spiffe://other/x may not write"),
        ({}, {"identities": ()}, Code.NOT_ALLOWED, "names no identity"),
        ({}, {"group": "X25519"}, Code.POLICY, "demands TLSv1.3 with X25519MLKEM768, the link has TLSv1.3 with X25519"),
        ({}, {"version": "TLSv1.2"}, Code.POLICY, "the link has TLSv1.2"),
        (
            {},
            {"authentication": "rsa_pss_rsae_sha256", "certificate_algorithm": "RSA 2048"},
            Code.POLICY,
            "this one is by rsa_pss_rsae_sha256",
        ),
        ({"mode": "kemtls"}, {}, Code.POLICY, "authenticated by ML-KEM-768, this one is by ecdsa_secp256r1_sha256"),
        ({"mode": "kemtls-pdk"}, {}, Code.POLICY, "authenticated by ML-KEM-768, this one is by ecdsa_secp256r1_sha256"),
        ({"mode": "pq-auth"}, {}, Code.POLICY, "authenticated by mldsa65, this one is by ecdsa_secp256r1_sha256"),
    ],
)
async def test_a_hello_that_is_not_permitted_is_refused_with_the_reason(
    changes: dict[str, Any], facts: dict[str, Any], code: Code, text: str
) -> None:
    async with serving() as receiver:
        forwarder, refusing = await receiver.link(replace(FORWARDER, **facts))
        forwarder.say(replace(HELLO, **changes))
        assert text in await forwarder.refused(code)
        assert refusing.guest is None
        assert receiver.total("logreceiver_refused_links_total", code=str(code)) == 1
        weaker = receiver.total("tls_policy_violations_total", stream="http", reason="weaker_than_mode")
        assert weaker == (code is Code.POLICY)


async def test_the_second_choice_of_a_mode_is_accepted_and_counted() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link(replace(FORWARDER, group="X25519"))
        forwarder.say(replace(HELLO, mode="hybrid-preferred"))
        await forwarder.hear(m.Welcome)
        assert receiver.total("tls_downgrades_total", stream="http", reason="X25519") == 1


async def test_the_topic_of_the_ledger_is_for_receivers_alone() -> None:
    async with serving(replace(CONFIG, ledger=Ledger(topic="audit"))) as receiver:
        forwarder, _ = await receiver.link()
        forwarder.say(replace(HELLO, stream="audit"))
        assert "only receivers" in await forwarder.refused(Code.NOT_ALLOWED)


async def test_a_topic_is_made_for_the_first_run_and_not_for_a_hello() -> None:
    async with serving() as receiver:
        receiver.sink.made.clear()
        forwarder, _ = await receiver.link()
        forwarder.say(HELLO)
        welcome = await forwarder.hear(m.Welcome)
        assert (welcome.topic, welcome.topic_id, welcome.max_message_bytes) == ("http", "", 0)
        assert receiver.sink.made == set()
        forwarder.say(m.OpenRun(1))
        run = await forwarder.hear(m.Run)
        assert (run.topic_id, run.max_message_bytes) == ("id of http", 1 << 20)
        assert receiver.sink.made == {"http"}


async def test_an_identity_may_use_a_bounded_number_of_names_which_others_do_not_count() -> None:
    rules = (Allow(identity="spiffe://test/*", streams=("*",)),)
    config = replace(CONFIG, allow=rules, limits=Limits(max_streams_per_identity=2))
    async with serving(config) as receiver:
        for number, name in enumerate(("a", "b", "a", "c")):
            forwarder, _ = await receiver.link()
            forwarder.say(replace(HELLO, stream=name, forwarder_id=str(number)))
            if name == "c":
                assert "max_streams_per_identity" in await forwarder.refused(Code.NOT_ALLOWED)
            else:
                await forwarder.hear(m.Welcome)
        other, _ = await receiver.link(replace(FORWARDER, identities=("spiffe://test/other",)))
        other.say(replace(HELLO, stream="c"))
        await other.hear(m.Welcome)


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "a\n", "a" * 129])
async def test_a_name_that_no_forwarder_may_give_a_stream_is_refused(name: str) -> None:
    config = replace(CONFIG, allow=(Allow(identity="spiffe://test/*", streams=("*",)),))
    async with serving(config) as receiver:
        forwarder, _ = await receiver.link()
        forwarder.say(replace(HELLO, stream=name))
        assert "name of a stream" in await forwarder.refused(Code.NOT_ALLOWED)


async def test_a_sink_that_has_no_such_topic_is_the_reason_of_a_refusal() -> None:
    async with serving() as receiver:
        receiver.sink.unavailable = SinkUnavailable(Code.TOPIC_MISSING, "no topic 'http'")
        forwarder, _ = await receiver.link()
        forwarder.say(HELLO)
        assert await forwarder.refused(Code.TOPIC_MISSING) == "no topic 'http'"


async def test_a_forwarder_with_patience_is_welcomed_while_the_sink_is_away_and_gets_its_run_later() -> None:
    async with serving() as receiver:
        receiver.sink.unavailable = SinkUnavailable(Code.UNAVAILABLE, "no broker answers")
        receiver.sink.cluster_id = ""
        impatient, _ = await receiver.link()
        impatient.say(HELLO)
        assert await impatient.refused(Code.UNAVAILABLE) == "no broker answers"
        forwarder, _ = await receiver.link()
        forwarder.say(replace(HELLO, patient=True))
        welcome = await forwarder.hear(m.Welcome)
        assert (welcome.cluster_id, welcome.topic, welcome.topic_id) == ("", "http", "")
        forwarder.say(m.OpenRun(1))
        assert (await forwarder.hear(m.Nack)).code == Code.UNAVAILABLE
        forwarder.say(m.OpenRun(1, patience_ms=20_000))
        receiver.sink.unavailable, receiver.sink.cluster_id = None, "cluster"
        assert (await forwarder.hear(m.Run)).cluster_id == "cluster"


async def test_a_link_for_which_there_is_no_room_is_turned_away() -> None:
    async with serving() as receiver, links() as (near, far):
        await Session(far, receiver.shared).turn_away(Code.TOO_MANY_LINKS, "no room for another link")
        assert await Forwarder(near).refused(Code.TOO_MANY_LINKS) == "no room for another link"


# -- several links, and their end ----------------------------------------------------------------------------------


async def test_a_newer_link_of_a_stream_ends_the_older_one_and_stays_known_after_that_has_left() -> None:
    async with serving() as receiver:
        older, _ = await receiver.link()
        older.say(HELLO)
        await older.hear(m.Welcome)
        newer, newest = await receiver.link()
        newer.say(HELLO)
        await newer.hear(m.Welcome)
        assert "newer link" in await older.refused(Code.SUPERSEDED)
        await older.link.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while receiver.total("logreceiver_links", stream="http") != 1:
                await asyncio.sleep(0.001)
        assert list(receiver.shared.sessions.values()) == [newest]


async def test_links_of_two_forwarders_for_one_stream_live_side_by_side() -> None:
    async with serving() as receiver:
        for forwarder_id in ("one", "two"):
            forwarder, _ = await receiver.link()
            forwarder.say(replace(HELLO, forwarder_id=forwarder_id))
            await forwarder.hear(m.Welcome)
        assert len(receiver.shared.sessions) == 2


async def test_a_stop_is_announced_and_what_is_under_way_is_still_answered() -> None:
    async with serving() as receiver:
        forwarder, stopping = await receiver.link()
        await forwarder.run()
        receiver.sink.open.clear()
        forwarder.send(batch(7, 0))
        while not receiver.sink.produced:
            await asyncio.sleep(0.001)
        stopping.go_away("the receiver stops", 2.5)
        goaway = await forwarder.hear(m.Goaway)
        assert (goaway.reason, goaway.grace_ms) == ("the receiver stops", 2500)
        receiver.sink.open.set()
        assert (await forwarder.hear(m.Ack)).seq == 0


async def test_a_forwarder_that_fell_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "IDLE_SECONDS", 0.1)
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        assert "fell silent" in await forwarder.refused(Code.TIMEOUT)


async def test_a_forwarder_that_waits_for_the_sink_is_not_taken_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "IDLE_SECONDS", 0.05)
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        receiver.sink.open.clear()
        forwarder.send(batch(7, 0), batch(7, 10))  # one in the sink, one that waits for it
        await asyncio.sleep(0.3)
        receiver.sink.open.set()
        assert [(await forwarder.hear(m.Ack)).seq for _ in range(2)] == [0, 1]


async def test_a_flood_of_messages_ends_its_link_and_holds_up_nobody_else() -> None:
    async with serving() as receiver:
        flooding, _ = await receiver.link()
        calm, _ = await receiver.link()
        for forwarder in (flooding, calm):
            forwarder.say(replace(HELLO, forwarder_id=f"{id(forwarder)}"))
            await forwarder.hear(m.Welcome)
        flooding.say(*[m.Ping(number) for number in range(20_000)])
        calm.say(m.Ping(1))
        await calm.hear(m.Pong)
        answered = 0
        while isinstance(message := await flooding.next(), m.Pong):
            answered += 1
        assert isinstance(message, m.Error)
        assert message.code == Code.TOO_FAST
        assert answered <= hearing.MOST_MESSAGES + 1
        calm.say(m.Ping(2))
        await calm.hear(m.Pong)


async def test_whoever_broke_a_rule_waits_for_the_next_link_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "FIRST_PENALTY_SECONDS", 1.0)
    async with serving() as receiver:
        broken, _ = await receiver.link()
        await broken.run()
        broken.send(batch(8, 0))  # another's producer
        await broken.refused(Code.NOT_GRANTED)
        started = time.monotonic()
        waiting, session = await receiver.link()
        waiting.say(HELLO)
        other, _ = await receiver.link(replace(FORWARDER, identities=("spiffe://test/other",)))
        other.say(HELLO)
        await other.hear(m.Welcome)
        assert session.guest is None
        await waiting.hear(m.Welcome)
        assert time.monotonic() - started >= 0.9


async def test_whoever_makes_one_link_after_the_other_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct.Conduct, "LINKS_OVER", 1.0)
    async with serving(replace(CONFIG, limits=Limits(max_links_per_identity=2))) as receiver:
        started = time.monotonic()
        for number in range(6):
            forwarder, _ = await receiver.link()
            forwarder.say(replace(HELLO, forwarder_id=str(number)))
            await forwarder.hear(m.Welcome)
            forwarder.link.abort()
        assert time.monotonic() - started >= 0.9, "two links more than four at once, of two a second"


async def test_new_topics_have_a_pace_for_all_links_of_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct.Conduct, "TOPICS_AT_ONCE", 2.0)
    monkeypatch.setattr(conduct.Conduct, "TOPICS_PER_SECOND", 10.0)
    names = [f"new-{number}" for number in range(4)]
    async with serving(replace(CONFIG, allow=(replace(CONFIG.allow[0], streams=("*",)),))) as receiver:
        started = time.monotonic()
        for name in names:
            forwarder, _ = await receiver.link()
            await forwarder.run(replace(HELLO, stream=name))
        assert time.monotonic() - started >= 2 / 10
    assert set(names) < receiver.sink.made


async def test_questions_about_runs_have_a_pace_for_all_links_of_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct.Conduct, "RUNS_AT_ONCE", 2.0)
    monkeypatch.setattr(conduct.Conduct, "RUNS_PER_SECOND", 20.0)
    async with serving() as receiver:
        started = time.monotonic()  # before its first question, from which on it earns the next
        forwarder, _ = await receiver.link()
        await forwarder.run()
        for number in range(2, 5):
            forwarder.say(m.OpenRun(number))
            await forwarder.hear(m.Run)
        assert time.monotonic() - started >= 2 / 20


# -- runs and batches ----------------------------------------------------------------------------------------------


async def test_batches_reach_the_sink_unchanged_and_are_answered_in_order_while_pings_overtake_them() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        run = await forwarder.run(partition=2)
        made = [batch(7, 10 * number) for number in range(3)]
        receiver.sink.open.clear()
        forwarder.send(*made)
        forwarder.say(m.Ping(42))
        assert (await forwarder.hear(m.Pong)).token == 42
        assert len(receiver.sink.produced) == 1, "one at a time"
        receiver.sink.open.set()
        answers = [await forwarder.hear(m.Ack) for _ in range(3)]
        assert [(answer.seq, answer.partition, answer.base_offset) for answer in answers] == [
            (number, 2, 10 * number) for number in range(3)
        ]
        assert receiver.sink.produced == [("http", 2, bytes(payload)) for payload in made]
        assert (run.partition, run.producer_id, run.topic) == (2, 7, "http")


async def test_after_a_refusal_the_rest_of_the_window_is_not_tried_until_the_run_is_opened_again() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        run = await forwarder.run()
        receiver.sink.answers.append(Outcome(Kind.REFUSED, code=Code.TOO_LARGE, text="too large"))
        forwarder.send(batch(7, 0), batch(7, 10), batch(7, 20))
        refusals = [await forwarder.hear(m.Nack) for _ in range(3)]
        assert [(each.seq, each.code, each.permanent, each.uncertain) for each in refusals] == [
            (0, "too_large", True, False),
            (1, "not_tried", False, False),
            (2, "not_tried", False, False),
        ]
        assert len(receiver.sink.produced) == 1
        forwarder.say(m.OpenRun(1, run.topic, run.partition, run.producer_id, 0, run.grant))
        await forwarder.hear(m.Run)
        forwarder.send(batch(7, 0))
        assert (await forwarder.hear(m.Ack)).seq == 3


@pytest.mark.parametrize(
    ("outcome", "uncertain", "permanent"),
    [
        (Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT), True, False),
        (Outcome(Kind.UNCERTAIN, code=Code.CORRUPT), True, False),
        (Outcome(Kind.REFUSED, code=Code.UNAVAILABLE), False, False),
        (Outcome(Kind.REFUSED, code=Code.TOO_LARGE), False, True),
        (Outcome(Kind.REFUSED, code=Code.INVALID_RECORD), False, False),
        (Outcome(Kind.REFUSED), False, False),
    ],
)
async def test_a_refusal_says_whether_the_batch_may_be_stored_and_whether_to_try_again(
    outcome: Outcome, uncertain: bool, permanent: bool
) -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        receiver.sink.answers.append(outcome)
        forwarder.send(batch(7, 0))
        nack = await forwarder.hear(m.Nack)
        assert (nack.code, nack.uncertain, nack.permanent) == (str(outcome.code or Code.UNKNOWN), uncertain, permanent)


async def test_a_repeat_is_acknowledged_as_if_it_were_stored() -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        receiver.sink.answers.append(Outcome(Kind.DUPLICATE, 5))
        forwarder.send(batch(7, 0))
        assert (await forwarder.hear(m.Ack)).base_offset == 5


@pytest.mark.parametrize("fault", ["flipped byte", "announced records"])
async def test_a_damaged_batch_is_refused_for_good_and_does_not_reach_the_sink(fault: str) -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        payload = bytearray(batch(7, 0))
        payload[-1] ^= fault == "flipped byte"
        forwarder.send(memoryview(payload), records=10 if fault == "flipped byte" else 9)
        nack = await forwarder.hear(m.Nack)
        assert (nack.code, nack.permanent) == ("corrupt", True)
        assert receiver.sink.produced == []


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (batch(8, 10), Code.NOT_GRANTED),
        (batch(7, 10, producer_epoch=1), Code.NOT_GRANTED),
        (batch(7, 20), Code.BAD_SEQUENCE),
        (batch(7, 0), Code.BAD_SEQUENCE),
    ],
)
async def test_a_batch_with_another_stamp_than_the_one_granted_ends_the_link(second: memoryview, code: Code) -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        await forwarder.run()
        forwarder.send(batch(7, 0))
        await forwarder.hear(m.Ack)
        forwarder.send(second)
        await forwarder.refused(code)
        assert len(receiver.sink.produced) == 1


async def test_a_run_goes_on_only_with_the_grant_that_was_signed_for_it() -> None:
    async with serving() as receiver:
        receiver.sink.stored = RunState(0, 99)
        forwarder, _ = await receiver.link()
        granted = await forwarder.run()
        forwarder.say(m.OpenRun(2, granted.topic, granted.partition, 8, 0, granted.grant))
        nack = await forwarder.hear(m.Nack)
        assert (nack.seq, nack.code) == (-1, "not_granted")
        forwarder.say(m.OpenRun(3, granted.topic, granted.partition, 7, 0, granted.grant))
        again = await forwarder.hear(m.Run)
        assert (again.stored_epoch, again.stored_sequence, again.producer_id) == (0, 99, 7)


@pytest.mark.parametrize("asked", [-1, 4, 1000])
async def test_a_new_run_gets_a_partition_that_is_there(asked: int) -> None:
    async with serving() as receiver:
        forwarder, _ = await receiver.link()
        assert 0 <= (await forwarder.run(partition=asked)).partition < 4


async def test_a_session_that_has_ended_is_freed_at_once_and_not_by_the_next_collection_of_garbage() -> None:
    async with serving() as receiver:
        gc.disable()
        try:
            forwarder, session = await receiver.link()
            await forwarder.run()
            seen = weakref.ref(session)
            del session
            forwarder.link.abort()
            async with asyncio.timeout(10):
                while (left := seen()) is not None:
                    left._link.forget()  # as its listener does
                    del left
                    await asyncio.sleep(0.005)
        finally:
            gc.enable()
