"""Reloads of the forwarder: takes a new configuration, or refuses it and keeps the last good one; one at a time.

A directory that was not mounted, or a deployment that went wrong, looks like a configuration without most of its
streams. So one that lacks running streams is refused, unless a file declares each of them as `removed`, or the reload
is confirmed by the digest that the refusal names. A start without them takes what is there, as it cannot ask; then it
is degraded, and reloads are refused, until they are back, declared as removed or confirmed to be gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from logfwd import accepted
from logfwd.changes import Change, compare, groups
from logfwd.config import ForwarderConfig
from logfwd.metrics import ForwarderMetrics
from logfwd.sources.listeners import check as check_listeners
from streams.config import changes
from streams.config.changes import digest
from streams.config.exposed import tell_of_secrets
from streams.errors import ConfigError
from streams.security import stacks
from streams.security.modes import MODES

Load = Callable[[], ForwarderConfig]

log = structlog.get_logger("logfwd")


class Report(changes.Report, frozen=True, kw_only=True):
    """The answer to a reload; `taken` and `waits` are of logfwd.toml. Streams are originals, each with its twins."""

    started: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Those that begin again where they were."""
    relinked: tuple[str, ...] = ()
    """Those that go on, over new links."""
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    """Sections whose certificates, keys or authorities are others than at the last reload."""


class Reloading:
    """The reloads of one forwarder, which takes a change by `take`."""

    def __init__(
        self, config: ForwarderConfig, take: Callable[[Change], Awaitable[None]], metrics: ForwarderMetrics
    ) -> None:
        self._config, self._take, self._metrics = config, take, metrics
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Task[object]] = set()
        self._refusal = ""
        """Why the last reload was refused; empty if it was taken."""
        self._waits: tuple[str, ...] = ()
        self._missing: frozenset[str] = frozenset()
        """Streams that were there before the start, and of which no file says that they are to go."""
        self._files: asyncio.Future[dict[str, bytes]]
        """Digests of what the files of each mode held when they were taken."""
        metrics.config_is(digest(config))

    def start(self) -> None:
        """Find out which streams are missing since the last start or reload, and which certificates there are."""
        # not awaited: their disk may not answer
        self._files = asyncio.ensure_future(asyncio.to_thread(_digests, self._config))
        known = accepted.load(self._config.state_dir)
        self._missing = known - groups(self._config).keys() - set(self._config.removed)
        if self._missing:
            log.error("streams missing", streams=sorted(self._missing), remedy=_remedy(digest(self._config)))
        else:
            accepted.store(self._config.state_dir, groups(self._config))

    async def reload(self, load: Load, *, check: bool = False, confirm: str = "") -> Report:
        """Load and take a configuration. `check`: only say what would be done; `confirm`: the digest of a refusal."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            async with self._one_at_a_time:
                report = await self._reload(load, check=check, confirm=confirm)
        finally:
            self._under_way.discard(task)
        if not check:
            self._tell(report)
        return report

    async def stop(self) -> None:
        """Give up reloads under way: they would start again what is being stopped."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def troubles(self) -> Mapping[str, str]:
        """What of the files is not in use."""
        if self._refusal:
            return {"config": f"the last reload was refused: {self._refusal}"}
        if self._missing:
            missing = ", ".join(sorted(self._missing))
            return {"config": f"streams missing since the last start: {missing}; {_remedy(digest(self._config))}"}
        return {"config": f"waits for a restart: {', '.join(self._waits)}"} if self._waits else {}

    async def _reload(self, load: Load, *, check: bool, confirm: str) -> Report:
        try:
            before = await self._files
            # in a thread: its files may be on a disk that does not answer
            new, files = await asyncio.to_thread(_load, load, self._config.modes)
        except ConfigError as error:
            remedy = "mend what the problems name; until then the last good configuration stays in use"
            return Report(outcome="refused", reason="invalid", problems=tuple(map(str, error.problems)), remedy=remedy)
        renewed = {mode for mode in files if files[mode] != before.get(mode, files[mode])}
        change, name = compare(self._config, new, renewed), digest(new)
        report = Report(
            outcome="checked",
            digest=name,
            taken=change.taken,
            waits=change.waits,
            started=change.started,
            changed=change.changed,
            relinked=change.relinked,
            removed=change.removed,
            renewed=tuple(sorted({MODES[mode].section for mode in renewed})),
        )
        missing = {*change.undeclared, *self._missing - groups(new).keys() - set(new.removed)}
        if missing and confirm != name:
            reason = f"streams missing: {', '.join(sorted(missing))}"
            return msgspec.structs.replace(report, outcome="refused", reason=reason, remedy=_remedy(name))
        if check:
            return report
        self._config = change.config
        self._files = asyncio.get_running_loop().create_future()
        self._files.set_result(files)
        await self._take(change)
        self._missing = frozenset()
        await asyncio.to_thread(accepted.store, self._config.state_dir, groups(self._config))
        return msgspec.structs.replace(report, outcome="taken")

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
                remedy=report.remedy,
            )
            return
        self._waits = report.waits
        self._metrics.config_is(digest(self._config))
        log.info(
            "config reloaded",
            digest=report.digest,
            taken=list(report.taken),
            waits=list(report.waits),
            started=list(report.started),
            changed=list(report.changed),
            relinked=list(report.relinked),
            removed=list(report.removed),
            renewed=list(report.renewed),
        )


def _remedy(name: str) -> str:
    """For streams that are missing in the configuration of this digest."""
    declared = "put them back, or write removed = true into their files"
    return f"{declared}; if they are to go: logfwd reload --confirm {name}"


def _digests(config: ForwarderConfig) -> dict[str, bytes]:
    """What the files of each mode hold; reads them."""
    return {mode: stacks.digest_of_files(MODES[mode], config.tls) for mode in config.modes}


def _load(load: Load, known: set[str]) -> tuple[ForwarderConfig, dict[str, bytes]]:
    """Read and check everything, also the files that it names, which are digested; ConfigError."""
    config = load()
    tell_of_secrets(config)
    modes = stacks.named(sorted(config.modes), config.tls)
    stacks.check(config.tls, modes, accepting=False)
    check_listeners([stream.source for stream in config.streams])
    stacks.self_test(mode for mode in modes if mode.name not in known)
    return config, _digests(config)
