"""`logbench chaos`: real processes, a real Kafka, and a seeded schedule of faults while numbered records flow.

Three streams: two originals with a file each, and a twin of the first. Two receivers behind one address list, each
behind a fault proxy. Faults (faults.py): kill -9 and SIGSTOP of forwarder, receivers and broker; links cut, slowed,
delayed or silenced; steps of the forwarder's clock; rotation; reload. Then the faults end, everything drains, and the
oracle reads the topics. A failing seed keeps its directory and can be run again with the same schedule.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.chaos.faultproxy import FaultProxy
from bench.chaos.faults import schedule
from bench.chaos.steppedclock import SteppedClock
from bench.chaos.strike import Striker
from bench.figures import report
from bench.lab.feeder import Feeder
from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed
from bench.lab.oracle import Finding, OracleFailed, judge, read_topic
from bench.lab.processes import StartFailed, wait_until
from bench.lab.site import Site
from streams.telemetry.client import NotAnswered

DRAIN_SECONDS = 240.0
CALM_SECONDS = 5.0
LOOK_SECONDS = 0.1
PAGE_WIDTH = 120
ORIGINALS = ("a", "b")
STREAM = 'security = "{mode}"\n[source]\ntype = "file"\npaths = ["{file}.log"]\n[batch]\nlinger = "{linger}ms"\n'
TRACEBACK = "Traceback (most recent call last)"
COUNTED = ("sent", "stored", "missing", "twice", "out_of_order", "foreign")


@dataclass(frozen=True)
class Outcome:
    """One seed: the faults that the installation went through, and what became of the records."""

    seed: int
    seconds: float
    faults: dict[str, int]
    cuts: int
    resets: dict[str, int]
    dropped: int
    drained: bool
    deaths: list[str]
    tracebacks: list[str]
    findings: list[Finding]

    @property
    def exact(self) -> bool:
        """No record missing, duplicated or out of order; everything drained, and no program ended by itself."""
        return self.drained and not self.deaths and all(finding.exact for finding in self.findings)

    @property
    def kills(self) -> int:
        return sum(count for fault, count in self.faults.items() if fault.startswith(("kill", "swap")))


class Chaos:
    """One seed's installation, its faults and the verdict. Use it in the thread that started Kafka."""

    def __init__(self, seed: int, directory: Path, kafka: Kafka) -> None:
        self.seed, self.directory, self.kafka = seed, directory, kafka
        self.sources = {f"s{seed}-{name}": name for name in ORIGINALS} | {f"s{seed}-twin": "a"}
        self.site = Site(directory)
        self.clock = SteppedClock(directory / "clock")
        self.site.forwarder.argv[:1] = self.clock.argv  # the same command, running on this clock
        self.receivers = [self.site.receiver, self.site.make_receiver("second")]

    def run(self, seconds: float) -> Outcome:
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            self._broker_is_up()
            stack.callback(self._stop_programs)
            proxies = [stack.enter_context(FaultProxy(address)) for address in self._start_receivers()]
            self._start_forwarder([proxy.address for proxy in proxies])
            feeders = {name: Feeder(self.directory / f"{name}.log", name, self.seed) for name in ORIGINALS}
            programs = {f"receiver {number}": program for number, program in enumerate(self.receivers, 1)}
            striker = Striker(
                {"forwarder": self.site.forwarder, **programs},
                self.kafka,
                proxies,
                feeders,
                self._rewrite_stream,
                self.clock.set,
            )
            for feeder in feeders.values():
                feeder.start()
            try:
                striker.run(schedule(self.seed, seconds))
            finally:
                for feeder in feeders.values():
                    feeder.stop()
            sent = {name: feeders[source].sent for name, source in self.sources.items()}
            drained, rows = self._drain(sent)
        findings = [
            judge(name, sent[name], read_topic(self.kafka.bootstrap, name), source=source)
            for name, source in self.sources.items()
        ]
        return Outcome(
            self.seed,
            time.monotonic() - started,
            dict(striker.counts),
            sum(proxy.cuts for proxy in proxies),
            {name: row["resets"] for name, row in rows.items()},
            sum(row["records"]["dropped"] + row["records"]["dead_lettered"] for row in rows.values()),
            drained,
            striker.deaths,
            self._tracebacks(),
            findings,
        )

    # -- installation ------------------------------------------------------------------------------------------

    def _broker_is_up(self) -> None:
        """Wait for the broker: the last seed may have ended just after it was launched."""
        broker = self.kafka.brokers[0]
        if not wait_until(broker.has_started, 60, every_seconds=LOOK_SECONDS):
            raise KafkaFailed(broker.tail())

    def _start_receivers(self) -> list[str]:
        self.site.make_pki()
        sink = f'type = "kafka"\nbrokers = ["{self.kafka.bootstrap}"]\ncreate_topics = true\nproduce_timeout = "10s"'
        modes, addresses = '["hybrid", "classical", "pq-auth"]', []
        for program in self.receivers:
            name = program.log_path.stem
            self.site.write_receiver(sink, listeners={"localhost:0": modes}, name=name)
            program.start()
            addresses.append(str(program.wait_for("listening")[0]["address"]))
            self.site.write_receiver(sink, listeners={addresses[-1]: modes}, name=name)  # the same port after a kill
        return addresses

    def _start_forwarder(self, addresses: list[str]) -> None:
        self.site.write_forwarder(addresses, more='answer_timeout = "15s"\nstop_grace = "2s"')
        original, second, twin = self.sources
        self._rewrite_stream(0.5)
        self.site.write_stream(second, STREAM.format(mode="pq-auth", file="b", linger=30))
        self.site.write_stream(twin, f'security = "hybrid"\nmirror_of = "{original}"\n')
        self.site.start_forwarder()

    def _rewrite_stream(self, share: float) -> None:
        """Rewrite the first stream's file with a different linger."""
        linger = 20 + int(30 * share)
        self.site.write_stream(next(iter(self.sources)), STREAM.format(mode="classical", file="a", linger=linger))

    def _stop_programs(self) -> None:
        for program in (self.site.forwarder, *self.receivers):
            if program.running():
                program.stop()

    # -- afterwards --------------------------------------------------------------------------------------------

    def _drain(self, sent: dict[str, int]) -> tuple[bool, dict[str, Any]]:
        """Wait until everything is acknowledged or nothing has been left to do for a while.

        Returns whether it drained, and the forwarder's own rows.
        """
        rows: dict[str, Any] = {}
        deadline = calm_until = time.monotonic() + DRAIN_SECONDS
        while (now := time.monotonic()) < deadline:
            with contextlib.suppress(NotAnswered, KeyError):
                rows = self.site.streams()
                if any(rows[name]["spool"]["batches"] or rows[name]["source_lag_bytes"] for name in sent):
                    calm_until = deadline
                elif all(rows[name]["records"]["acknowledged"] >= count for name, count in sent.items()):
                    return True, rows
                else:
                    calm_until = min(calm_until, now + CALM_SECONDS)
                    if now >= calm_until:
                        return True, rows
            time.sleep(LOOK_SECONDS)
        return False, rows

    def _tracebacks(self) -> list[str]:
        """The event and the last line of each traceback in the logs."""
        logs = (program.log_path.read_text(errors="replace") for program in (self.site.forwarder, *self.receivers))
        return [_last_words(line) for log in logs for line in log.splitlines() if TRACEBACK in line]


def _last_words(line: str) -> str:
    try:
        event = json.loads(line)
        return f"{event['event']}: {event['exception'].splitlines()[-1]}"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return line


def _counts(findings: Iterable[Finding]) -> dict[str, int]:
    return {name: sum(getattr(finding, name) for finding in findings) for name in COUNTED}


COUNTS: Sequence[report.Column] = (
    ("sent", lambda r: f"{r['sent']:,}"),
    ("stored", lambda r: f"{r['stored']:,}"),
    ("missing", lambda r: f"{r['missing']:,}"),
    ("duplicates", lambda r: f"{r['twice']:,}"),
    ("out of order", lambda r: f"{r['out_of_order']:,}"),
    ("foreign", lambda r: f"{r['foreign']:,}"),
    ("resets", lambda r: str(r["resets"])),
)


def streams_table(outcome: Outcome) -> Table:
    """One line per stream of a seed."""
    rows = [
        {"stream": each.stream, **_counts([each]), "resets": outcome.resets.get(each.stream, "?")}
        for each in outcome.findings
    ]
    return report.table(f"seed {outcome.seed}", [("stream", lambda r: r["stream"]), *COUNTS], rows)


def summary_table(outcomes: list[Outcome]) -> Table:
    """One line per seed, and the total."""

    def line(title: str, some: list[Outcome]) -> dict[str, Any]:
        return {
            "seed": title,
            "seconds": sum(each.seconds for each in some),
            "kills": sum(each.kills for each in some),
            "faults": sum(sum(each.faults.values()) for each in some),
            **_counts([finding for each in some for finding in each.findings]),
            "resets": sum(sum(each.resets.values()) for each in some),
        }

    columns: list[report.Column] = [
        ("seed", lambda r: r["seed"]),
        ("seconds", lambda r: f"{r['seconds']:.0f}"),
        ("kills", lambda r: str(r["kills"])),
        ("faults", lambda r: str(r["faults"])),
        *COUNTS,
    ]
    return report.table("chaos", columns, [*(line(str(each.seed), [each]) for each in outcomes), line("all", outcomes)])


def _sentence(outcome: Outcome) -> str:
    verdict = "exact" if outcome.exact else "NOT EXACT"
    drained = "" if outcome.drained else f", not drained within {DRAIN_SECONDS:.0f} s"
    faults = sum(outcome.faults.values())
    return (
        f"seed {outcome.seed}: {verdict}{drained}; {outcome.kills} kills in {faults} faults, {outcome.cuts} links "
        f"cut in a frame, {outcome.dropped} dropped, {len(outcome.tracebacks)} tracebacks"
    )


def faults_table(outcomes: list[Outcome]) -> Table:
    """How often each fault was injected."""
    times = sum((Counter(outcome.faults) for outcome in outcomes), Counter[str]())
    columns: list[report.Column] = [("fault", lambda r: r["fault"]), ("times", lambda r: str(r["times"]))]
    return report.table("faults", columns, [{"fault": name, "times": each} for name, each in sorted(times.items())])


def run_seeds(seeds: list[int], seconds: float, directory: Path, console: Console) -> list[Outcome]:
    """Run one seed after another on one Kafka; a seed that is not exact keeps its directory."""
    outcomes = []
    with Kafka(directory / "kafka") as kafka:
        for seed in seeds:
            home = directory / f"seed-{seed}"
            with console.status(f"seed {seed}: {seconds:.0f} s of faults"):
                outcome = Chaos(seed, home, kafka).run(seconds)
            outcomes.append(outcome)
            console.print(streams_table(outcome))
            console.print(_sentence(outcome))
            for death in outcome.deaths:
                console.print(f"  ended by itself: {death}", markup=False)
            for words in outcome.tracebacks:
                console.print(f"  traceback: {words}", markup=False)
            if outcome.exact:
                shutil.rmtree(home)
            else:
                console.print(f"  kept {home}; run it again: logbench chaos --seed {seed} --minutes {seconds / 60:g}")
    return outcomes


@click.command(short_help="Kill everything while records flow, then count losses.")
@click.option("--seed", default=1, show_default=True, help="First seed; it determines the schedule of faults.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of consecutive seeds, run one after the other.",
)
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Duration of each seed's faults."
)
@report.as_json_option
def chaos(seed: int, seeds: int, minutes: float, as_json: bool) -> None:
    """Kill, stop and cut off everything while records flow; then count missing, duplicated and reordered records.

    Two receivers, one forwarder and a real Kafka broker are killed (SIGKILL) and stopped (SIGSTOP), links are cut,
    slowed and silenced, the forwarder's clock is stepped, files rotate and streams reload. Then everything drains, and
    an independent reader counts the records in Kafka.

    Each seed takes --minutes plus the drain (at most 4 minutes). Exit code 0: every seed exact; 1: records missing,
    duplicated, out of order or not drained, or a program ended by itself. A failing seed keeps its directory.
    """
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = PAGE_WIDTH
    directory = Path(tempfile.mkdtemp(prefix="logbench-chaos-"))
    try:
        outcomes = run_seeds(list(range(seed, seed + seeds)), minutes * 60, directory, console)
    except (StartFailed, OracleFailed) as error:
        raise click.ClickException(f"{error}\nkept {directory}") from error
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        console.print(faults_table(outcomes))
        console.print(summary_table(outcomes))
    exact = all(outcome.exact for outcome in outcomes)
    if exact:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if exact else 1)
