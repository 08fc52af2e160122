"""Reloads: takes a new configuration whole or not at all, then judges every open link by it.

First everything new is made beside what is in use, and may fail: then the old configuration stays, and the answer, a
log line and a metric say why. What is taken after that cannot fail. Certificates, grant keys and the sink's credentials
are read again even if the configuration is the same. The look for changed certificates (`reload_certificates`) does not
read again what a reload has taken.

One that would end links that nobody may have meant (weighing.py) is refused until it is confirmed by the digest that
the refusal names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from logreceiver.checks import modes_of, problems_of_files
from logreceiver.config import ReceiverConfig
from logreceiver.ledger.writer import Ledger
from logreceiver.links.authorisation import Verdict
from logreceiver.links.grants import Grants
from logreceiver.links.session import RETIRE_SECONDS, Session
from logreceiver.links.shared import Shared
from logreceiver.listeners import Change, Listeners
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks.make import renewal
from logreceiver.taking import Taking, take
from logreceiver.weighing import Ending, doubt, named
from streams.config import changes
from streams.config.changes import digest
from streams.config.exposed import tell_of_secrets
from streams.errors import Code, ConfigError, LinkError
from streams.security import stacks
from streams.security.listener import Listener
from streams.security.revocation import Revoked
from streams.watching import Stamps, stamps_of

STOPPING, START_AGAIN = "the receiver is stopping", "it reads its configuration when it starts"
CLOSE_SECONDS = RETIRE_SECONDS + 2.0
"""After this, a listener that is no longer configured cuts the links that are left."""

Load = Callable[[], ReceiverConfig]
Links = Callable[[], Collection[tuple[Session, Listener]]]

log = structlog.get_logger("logreceiver")


class Report(changes.Report, frozen=True, kw_only=True):
    """The answer to a reload."""

    links: int = 0
    """Open before."""
    ends: int = 0
    """Those of them that end."""
    ending: tuple[str, ...] = ()
    """Which these are, and why."""


class _Prepared(NamedTuple):
    """Everything of a configuration, made and checked, and not yet in use."""

    taking: Taking
    grants: Grants
    stamps: Stamps
    """Of the files of certificates, from before they were read: what changes meanwhile is noticed."""
    revoked: Revoked
    listeners: Change
    renew_sink: Callable[[], None]


class Reloading:
    """The reloads of one receiver. `links` gives its open links, each with the listener that it came by.

    `stamps` are those of the files of certificates from before they were read.
    """

    def __init__(
        self, shared: Shared, listeners: Listeners, links: Links, metrics: ReceiverMetrics, stamps: Stamps
    ) -> None:
        self._shared, self._listeners, self._links, self._metrics = shared, listeners, links, metrics
        self._seen = stamps
        """Of the files of certificates that were read last, whether they are in use or not."""
        self._one_at_a_time = asyncio.Lock()
        self._prepared: tuple[_Prepared, Report] | None = None
        """What waits to be taken or dropped."""
        self._ending: set[asyncio.Task[None]] = set()
        """Ledgers that write their last records."""
        self._stopping = False
        self._refusal = ""
        """Why the last reload was refused; empty if it was taken."""
        self._waits: tuple[str, ...] = ()
        """Keys of the last one that are not in use."""
        self._certificates_refused = ""
        """Why certificates that were replaced are not in use; empty if they are."""

    def troubles(self) -> Mapping[str, str]:
        """What of the files is not in use."""
        found = {}
        if self._refusal:
            found["config"] = f"the last reload was refused: {self._refusal}"
        elif self._waits:
            found["config"] = f"waits for a restart: {', '.join(self._waits)}"
        if self._certificates_refused:
            found["certificates"] = f"the new files are not in use: {self._certificates_refused}"
        return found

    async def prepare(self, load: Load, *, check: bool = False, confirm: str = "") -> Report:
        """Load a configuration and make everything of it ready.

        `check`: only say what would be done; `confirm`: the digest of a refusal. What is neither refused nor only
        checked waits for `take` or `drop`, and any other reload waits for that.
        """
        await self._one_at_a_time.acquire()
        try:
            report = await self._ready(load, check=check, confirm=confirm)
        except BaseException:
            self._one_at_a_time.release()
            raise
        if self._prepared is None:
            self._one_at_a_time.release()
            if not check:
                self._tell(report)
        return report

    async def take(self) -> tuple[Report, Sequence[Session]]:
        """Put what was prepared into use; also returns the links that it shuts out."""
        if self._stopping:
            return await self.drop(STOPPING, START_AGAIN), ()
        prepared, report = self._pop()
        shut_out = self._commit(prepared)
        self._one_at_a_time.release()
        report = msgspec.structs.replace(report, outcome="taken")
        self._tell(report)
        return report, shut_out

    async def drop(self, reason: str, remedy: str) -> Report:
        """Keep what is in use instead of what was prepared, or was to be."""
        report = Report(outcome="refused")
        if self._prepared is not None:
            prepared, report = self._pop()
            try:
                await self._listeners.abandon(prepared.listeners)
            finally:
                self._one_at_a_time.release()
        report = msgspec.structs.replace(report, outcome="refused", reason=reason, remedy=remedy)
        self._tell(report)
        return report

    def _pop(self) -> tuple[_Prepared, Report]:
        assert self._prepared is not None
        prepared, self._prepared = self._prepared, None
        return prepared

    async def _ready(self, load: Load, *, check: bool, confirm: str) -> Report:
        try:
            # in a thread: its files may be on a disk that does not answer
            name, prepared = await asyncio.to_thread(self._prepare, load)
            report = self._weigh(prepared, name, confirm)
            if report.outcome == "refused" or check:
                return report
            if self._stopping:
                return msgspec.structs.replace(report, outcome="refused", reason=STOPPING, remedy=START_AGAIN)
            await self._listeners.open(prepared.listeners)
        except (ConfigError, LinkError) as error:
            problems = error.problems if isinstance(error, ConfigError) else [error]
            remedy = "mend what the problems name; until then the last good configuration stays in use"
            return Report(outcome="refused", reason="invalid", problems=tuple(map(str, problems)), remedy=remedy)
        self._prepared = prepared, report
        return report

    def _prepare(self, load: Load) -> tuple[str, _Prepared]:
        """A configuration's digest, and all of it; ConfigError if it cannot be used."""
        new = _load(load, self._shared.config)
        tell_of_secrets(new)
        taking = take(self._shared.config, new)
        config = taking.config
        stamps = stamps_of(config.certificate_files)
        return digest(new), _Prepared(
            taking,
            Grants.load(config.grant_key_file),
            stamps,
            Revoked.load(config.crl, config.tls.sections()),
            self._listeners.plan(config),
            renewal(self._shared.sink, config.sink),
        )

    def _weigh(self, prepared: _Prepared, name: str, confirm: str) -> Report:
        """What it would do, or a refusal because that is too much."""
        leaving = self._listeners.leaving(prepared.listeners)
        verdicts = self._verdicts(prepared.taking.config, prepared.revoked, leaving)
        endings = [Ending(session.guest, verdict) for session, verdict in verdicts]
        guests = [session.guest for session, _ in self._links()]
        report = Report(
            outcome="checked",
            digest=name,
            taken=prepared.taking.taken,
            waits=prepared.taking.waits,
            links=len(guests),
            ends=len(endings),
            ending=named(endings),
        )
        reason = doubt(endings, guests, self._shared.config.allow)
        if not reason or confirm == name:
            return report
        remedy = f"look at [[allow]] and [[listener]]; if this is meant: logreceiver reload --confirm {name}"
        return msgspec.structs.replace(report, outcome="refused", reason=reason, remedy=remedy)

    def _verdicts(
        self, config: ReceiverConfig, revoked: Revoked, leaving: Collection[Listener]
    ) -> list[tuple[Session, Verdict]]:
        """The links that have to end, and why."""
        found = []
        for session, listener in self._links():
            verdict = session.judge(config, revoked)
            if verdict is None and listener in leaving:
                verdict = Verdict(Code.TIMEOUT, "its listener was closed or serves other modes")
            if verdict is not None:
                found.append((session, verdict))
        return found

    def _commit(self, prepared: _Prepared) -> list[Session]:
        """Returns the links that are shut out, which may still be storing what the sink was given.

        Nothing here may fail, and nothing is awaited: every link sees the old configuration or the new one.
        """
        shared, before = self._shared, self._shared.config
        leaving = self._listeners.leaving(prepared.listeners)
        self._seen = prepared.stamps
        shared.take(prepared.taking.config, prepared.grants, prepared.revoked)
        self._metrics.revocation_lists(shared.revoked.next_update)
        prepared.renew_sink()
        if shared.config.ledger != before.ledger:
            self._change_ledger()
        self._listeners.commit(prepared.listeners, grace_seconds=CLOSE_SECONDS)
        log.info("certificate reloaded")
        return self.judge(leaving)

    def judge(self, leaving: Collection[Listener] = ()) -> list[Session]:
        """End the links that the present rules do not allow, and those of these listeners; returns who is shut out."""
        verdicts = self._verdicts(self._shared.config, self._shared.revoked, leaving)
        for session, verdict in verdicts:
            session.carry_out(verdict)
        return [session for session, verdict in verdicts if verdict.at_once]

    def _change_ledger(self) -> None:
        old, settings = self._shared.ledger, self._shared.config.ledger
        self._shared.ledger = None
        if settings is not None:
            self._shared.ledger = Ledger(settings.topic, self._shared.sink, self._metrics)
            self._shared.ledger.start()
        if old is not None:
            task = asyncio.create_task(old.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def stop(self) -> None:
        """Take nothing any more, not even what is being read just now."""
        self._stopping = True

    async def close(self) -> None:
        """Close the ledger in use, and wait for those that were replaced."""
        if self._shared.ledger is not None:
            await self._shared.ledger.close()
        await asyncio.gather(*self._ending)

    def _tell(self, report: Report) -> None:
        refused = report.outcome == "refused"
        how = (report.remedy,) if report.digest else ()  # to confirm it takes the digest
        self._refusal = "; ".join((report.reason, *report.problems, *how)) if refused else ""
        self._metrics.reloaded(successful=not refused)
        if refused:
            log.error(
                "config rejected",
                reason=report.reason,
                problems=list(report.problems),
                links=report.links,
                ends=report.ends,
                ending=list(report.ending),
                remedy=report.remedy,
            )
            return
        self._waits, self._certificates_refused = report.waits, ""
        log.info(
            "config reloaded",
            digest=report.digest,
            taken=list(report.taken),
            waits=list(report.waits),
            links=report.links,
            ends=report.ends,
            ending=list(report.ending),
        )

    async def reload_certificates(self) -> None:
        """Use the files, also the revocation lists, if they have changed; keep the old ones if these are no use."""
        # a disk may not answer, which is to hold up no reload
        stamps = await asyncio.to_thread(stamps_of, self._shared.config.certificate_files)
        async with self._one_at_a_time:
            if stamps == self._seen:
                return
            self._seen = stamps
            try:
                change, renew_sink, revoked = await asyncio.to_thread(self._certificates)
            except ConfigError as error:
                self._certificates_refused = str(error)
                log.error(
                    "certificate reload failed",
                    reason=str(error),
                    remedy="mend the files; the old certificate stays in use",
                )
                return
            if self._stopping:
                return
            self._certificates_refused = ""
            self._listeners.commit(change, grace_seconds=CLOSE_SECONDS)
            renew_sink()
            self._shared.revoked = revoked
            self._metrics.revocation_lists(revoked.next_update)
            log.info("certificate reloaded")
            self.judge()

    def _certificates(self) -> tuple[Change, Callable[[], None], Revoked]:
        """What the files of the present configuration hold; ConfigError if one cannot be used."""
        config = self._shared.config
        stacks.check(config.tls, stacks.named(sorted(config.served_modes), config.tls), accepting=True)
        revoked = Revoked.load(config.crl, config.tls.sections())
        return self._listeners.plan(config), renewal(self._shared.sink, config.sink), revoked


def _load(load: Load, now: ReceiverConfig) -> ReceiverConfig:
    config = load()
    if problems := list(problems_of_files(config)):
        raise ConfigError(problems)
    stacks.self_test(mode for mode in modes_of(config) if mode not in modes_of(now))
    return config
