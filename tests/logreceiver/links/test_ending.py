"""How a receiver ends a link whose rights have changed: what is answered first, and what the forwarder is told."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from msgspec.structs import replace

from logreceiver.config import Allow, Deny, Drain, Ledger, Limits
from logreceiver.links import session
from logreceiver.links.authorisation import Verdict
from logreceiver.links.grants import Claim
from logreceiver.links.standing import overdue
from streams.errors import Code
from streams.security.endpoint import CertificateId
from streams.security.revocation import NONE, Revoked
from streams.wire import messages as m
from tests.logreceiver.links.test_session import CONFIG, HELLO, serving
from tests.support.batches import batch
from tests.support.installation import eventually
from tests.support.plaintext import FORWARDER

SHUT_OUT = Verdict(Code.REVOKED, "shut out")
ASKED = Verdict(Code.NOT_ALLOWED, "no longer allowed")


async def test_one_that_is_shut_out_hears_of_the_batch_that_the_sink_has_and_no_other_is_taken() -> None:
    async with serving() as receiver:
        forwarder, serves = await receiver.link()
        run = await forwarder.run()
        receiver.sink.open.clear()
        forwarder.send(batch(run.producer_id, 0), batch(run.producer_id, 10))
        await eventually(lambda: receiver.sink.produced)
        serves.carry_out(SHUT_OUT)
        await asyncio.sleep(0.05)  # the link is not cut meanwhile
        receiver.sink.open.set()
        assert (await forwarder.hear(m.Ack)).seq == 0
        assert await forwarder.refused(Code.REVOKED) == "shut out"
        assert len(receiver.sink.produced) == 1


async def test_one_that_is_shut_out_does_not_wait_for_a_slow_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CUT_SECONDS", 0.05)
    async with serving() as receiver:
        forwarder, serves = await receiver.link()
        run = await forwarder.run()
        receiver.sink.open.clear()
        forwarder.send(batch(run.producer_id, 0))
        await eventually(lambda: receiver.sink.produced)
        serves.carry_out(SHUT_OUT)
        assert await forwarder.refused(Code.REVOKED) == "shut out"


async def test_an_idle_link_is_cut_at_once() -> None:
    async with serving() as receiver:
        forwarder, serves = await receiver.link()
        await forwarder.run()
        serves.carry_out(SHUT_OUT)
        assert await forwarder.refused(Code.REVOKED) == "shut out"


async def test_one_that_may_come_back_is_asked_to_leave_and_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETIRE_SECONDS", 0.2)
    async with serving() as receiver:
        forwarder, serves = await receiver.link()
        run = await forwarder.run()
        receiver.sink.open.clear()
        forwarder.send(batch(run.producer_id, 0), batch(run.producer_id, 10))
        await eventually(lambda: receiver.sink.produced)
        serves.carry_out(ASKED)
        receiver.sink.open.set()
        assert (await forwarder.hear(m.Goaway)).reason == "no longer allowed"
        assert [(await forwarder.hear(m.Ack)).seq for _ in range(2)] == [0, 1]
        assert await forwarder.refused(Code.NOT_ALLOWED) == "no longer allowed"


async def test_a_link_is_judged_by_rules_and_revocation_lists() -> None:
    leaf = CertificateId(b"issuer", 7)
    async with serving() as receiver:
        forwarder, serves = await receiver.link(replace(FORWARDER, certificates=(leaf,)))
        revoked = Revoked({b"issuer": frozenset({7})}, {})
        assert serves.judge(CONFIG, NONE) is None, "it has asked for nothing yet"
        found = serves.judge(CONFIG, revoked)
        assert found is not None
        assert found.at_once
        await forwarder.run()
        assert serves.judge(CONFIG, NONE) is None
        for config, code in (
            (replace(CONFIG, deny=(Deny(identity="spiffe://test/*"),)), Code.REVOKED),
            (replace(CONFIG, allow=(Allow(identity="*", streams=("other",)),)), Code.NOT_ALLOWED),
            (replace(CONFIG, crl_required=True), Code.REVOKED),
            (replace(CONFIG, ledger=Ledger(topic="http")), Code.NOT_ALLOWED),
        ):
            found = serves.judge(config, NONE)
            assert found is not None
            assert found.code is code


async def test_rules_that_change_while_a_link_is_welcomed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as receiver:
        find = receiver.sink.find

        async def changing(name: str) -> object:
            receiver.shared.config = replace(CONFIG, deny=(Deny(identity="*"),))
            return await find(name)

        monkeypatch.setattr(receiver.sink, "find", changing)
        forwarder, _ = await receiver.link()
        forwarder.say(HELLO)
        assert "is shut out" in await forwarder.refused(Code.REVOKED)


def test_a_link_is_overdue_by_age_and_when_its_certificate_has_ended() -> None:
    now = datetime.datetime.now(datetime.UTC)

    def due(age: float, ends_in: float | None) -> bool:
        end = None if ends_in is None else now + datetime.timedelta(seconds=ends_in)
        found = overdue(replace(FORWARDER, certificate_expires=end), age, oldest=100.0)
        assert found is None or (found.code is Code.OVERDUE and not found.at_once)
        return found is not None

    assert [due(99.0, None), due(101.0, None), due(101.0, 1000.0)] == [False, True, True]
    assert [due(1.0, 60.0), due(1.0, -0.5), due(1.0, -1.0)] == [False, False, True]


async def test_a_link_that_was_asked_to_leave_is_not_asked_again() -> None:
    config = replace(CONFIG, limits=Limits(max_link_age_seconds=0.0))
    async with serving(config) as receiver:
        forwarder, serves = await receiver.link()
        await forwarder.run()
        found = serves.overdue()
        assert found is not None
        serves.carry_out(found)
        assert serves.overdue() is None
        assert "a new one proves again who you are" in (await forwarder.hear(m.Goaway)).reason


async def test_a_run_in_a_topic_that_becomes_the_ledgers_ends_its_link_and_is_not_opened_again() -> None:
    rules = replace(
        CONFIG, allow=(Allow(identity="*", streams=("*",), drains=(Drain(topic="old", until="2999-12-31"),)),)
    )
    async with serving(rules) as receiver:
        forwarder, serves = await receiver.link()
        first = await forwarder.run()
        grants, claim = receiver.shared.grants, Claim("spiffe://test/forwarder", "http", "cluster", "old", 0, 7)
        forwarder.say(m.OpenRun(2, "old", 0, 7, 0, grants.sign(claim)))
        assert (await forwarder.hear(m.Run)).topic == "old" != first.topic
        assert serves.judge(rules, NONE) is None
        receiver.shared.config = replace(rules, ledger=Ledger(topic="old"))
        found = serves.judge(receiver.shared.config, NONE)
        assert found is not None
        assert not found.at_once
        forwarder.say(m.OpenRun(3, "old", 0, 7, 0, grants.sign(claim)))
        assert (await forwarder.hear(m.Nack)).code == Code.NOT_GRANTED
