"""Whether an open link may stay: by the rules and revocation lists of now, by its age, by its peer's certificate."""

from __future__ import annotations

import datetime

from logreceiver.config import ReceiverConfig
from logreceiver.links.authorisation import RESERVED, Verdict, judge
from logreceiver.links.guest import Guest
from streams.errors import Code
from streams.security.endpoint import Facts
from streams.security.revocation import Revoked


def standing(
    facts: Facts, guest: Guest | None, config: ReceiverConfig, revoked: Revoked, *, run_topic: str = ""
) -> Verdict | None:
    """Why a link has to end under these rules; None if it may stay. One without a guest has asked for nothing yet.

    `run_topic`: of the run that is open, which may be older than the rules.
    """
    now = datetime.datetime.now(datetime.UTC)
    if why := revoked.why(facts.certificates, required=config.crl_required, now=now):
        return Verdict(Code.REVOKED, why)
    if guest is None:
        return None
    if run_topic and run_topic == config.reserved:
        return Verdict(Code.NOT_ALLOWED, RESERVED)
    hello = guest.hello
    return judge(
        guest.identity,
        guest.topic,
        config.allow,
        facts.identities,
        hello.stream,
        hello.mode,
        deny=config.deny,
        reserved=config.reserved,
    )


def overdue(facts: Facts, age: float, *, oldest: float) -> Verdict | None:
    """Whether a link is too old, or its peer's certificate has ended: not earlier, as it would come back. Seconds."""
    if age > oldest:
        return Verdict(Code.OVERDUE, f"the link is {age:.0f} s old; a new one proves again who you are")
    end = facts.certificate_expires  # a new handshake passes until the end of this second
    if end is not None and datetime.datetime.now(datetime.UTC) >= end + datetime.timedelta(seconds=1):
        return Verdict(Code.OVERDUE, "the forwarder's certificate has expired")
    return None
