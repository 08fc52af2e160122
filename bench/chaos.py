"""`logbench chaos`: real processes, a real Kafka, and a seeded schedule of faults while numbered records flow.

Three streams: two originals with a file each, and a twin of the first. Two receivers behind one address list. Faults:
kill -9 of forwarder, of either receiver, of the broker; SIGSTOP of each for a while; reload; the files are rotated by
rename all along. Then the faults stop, everything drains, and the oracle reads the topics. A failing seed keeps its
directory and can be run again with the same schedule.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.kafka import Kafka
from bench.oracle import Finding, judge
from bench.site import Program, Site

RECORDS_PER_SECOND = 4_000
FEED_SECONDS = 0.05
ROTATE_RECORDS = 25_000
DRAIN_SECONDS = 240.0
FILLER = "x" * 200
FAULTS = {
    "kill forwarder": 5, "kill receiver 1": 3, "kill receiver 2": 3, "kill broker": 1,
    "stop forwarder": 1, "stop receiver 1": 1, "stop receiver 2": 1, "stop broker": 1, "reload": 1,
}  # fmt: skip


class Feeder(threading.Thread):
    """Appends numbered records to a file at an even pace and rotates it by rename, until told to stop."""

    def __init__(self, path: Path, stream: str) -> None:
        super().__init__(daemon=True)
        self.path, self.stream, self.sent = path, stream, 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        rotations = 0
        while not self._stop_asked.wait(FEED_SECONDS):
            count = int(RECORDS_PER_SECOND * FEED_SECONDS)
            lines = (f'{{"stream":"{self.stream}","n":{n},"filler":"{FILLER}"}}\n'
                     for n in range(self.sent, self.sent + count))  # fmt: skip
            with self.path.open("a") as out:
                out.writelines(lines)
            self.sent += count
            if self.sent // ROTATE_RECORDS > rotations:
                rotations += 1
                self.path.rename(self.path.with_name(f"{self.path.name}.{rotations}"))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


@dataclass(frozen=True)
class Outcome:
    """One seed: what was done to the installation, and what became of the records."""

    seed: int
    seconds: float
    faults: dict[str, int]
    resets: int
    drained: bool
    findings: list[Finding]

    @property
    def exact(self) -> bool:
        return self.drained and all(finding.exact for finding in self.findings)

    @property
    def kills(self) -> int:
        return sum(count for fault, count in self.faults.items() if fault.startswith("kill"))


@dataclass
class Chaos:
    """One seed's installation and its faults. Brokers are handled from the thread that made them."""

    seed: int
    directory: Path
    kafka: Kafka
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> Outcome:
        names = [f"s{self.seed}-{name}" for name in ("a", "b", "twin")]
        started = time.monotonic()
        with Site(self.directory) as site:
            second = self._lay_out(site, names)
            feeders = [Feeder(self.directory / f"{name}.log", name) for name in ("a", "b")]
            for feeder in feeders:
                feeder.start()
            try:
                self._strike(site, second, seconds)
            finally:
                for feeder in feeders:
                    feeder.stop()
            drained = site.wait_until_drained(names, DRAIN_SECONDS)
            resets = sum(row["resets"] for row in site.streams().values())
            second.stop()
        sent = dict(zip(names, (feeders[0].sent, feeders[1].sent, feeders[0].sent), strict=True))
        findings = [judge(name, sent[name], self.kafka.consume(name)) for name in names]
        return Outcome(self.seed, time.monotonic() - started, dict(self.counts), resets, drained, findings)

    def _lay_out(self, site: Site, names: list[str]) -> Program:
        site.make_pki()
        sink = f'type = "kafka"\nbrokers = ["{self.kafka.bootstrap}"]\ncreate_topics = true\nproduce_timeout = "10s"'
        second, modes = site.make_receiver("second"), '["hybrid", "classical"]'
        addresses = []
        for name, program in (("logreceiver", site.receiver), ("second", second)):
            site.write_receiver(sink, listeners={"localhost:0": modes}, name=name)
            program.start()
            addresses.append(str(program.wait_for("listening")[0]["address"]))
            site.write_receiver(sink, listeners={addresses[-1]: modes}, name=name)  # the same port after a kill
        site.write_forwarder(addresses, more='answer_timeout = "15s"')
        a, b, twin = names
        tail = 'paths = ["{}.log"]\n[batch]\nlinger = "30ms"\n'
        site.write_stream(a, 'security = "classical"\n[source]\ntype = "file"\n' + tail.format("a"))
        site.write_stream(b, 'security = "hybrid"\n[source]\ntype = "file"\n' + tail.format("b"))
        site.write_stream(twin, f'security = "hybrid"\nmirror_of = "{a}"\n')
        site.start_forwarder()
        return second

    def _strike(self, site: Site, second: Program, seconds: float) -> None:
        dice, deadline = random.Random(self.seed), time.monotonic() + seconds
        kinds, weights = list(FAULTS), list(FAULTS.values())
        programs = {"forwarder": site.forwarder, "receiver 1": site.receiver, "receiver 2": second}
        while time.monotonic() < deadline:
            time.sleep(dice.uniform(0.1, 1.2))
            fault, pause = dice.choices(kinds, weights)[0], dice.uniform(0.0, 2.0)
            self.counts[fault] += 1
            verb, _, whom = fault.partition(" ")
            if fault == "reload":
                site.forwarder.signal(signal.SIGHUP)
            elif whom == "broker":
                self._strike_broker(verb, pause)
            else:
                STRIKES[verb](programs[whom], pause)

    def _strike_broker(self, verb: str, pause: float) -> None:
        if verb == "stop":
            self.kafka.pause()
            time.sleep(pause)
            self.kafka.resume()
        else:
            self.kafka.restart()


def _kill(program: Program, pause: float) -> None:
    program.kill()
    time.sleep(pause / 4)
    program.start()


def _stop(program: Program, pause: float) -> None:
    program.signal(signal.SIGSTOP)
    time.sleep(pause)
    program.signal(signal.SIGCONT)


STRIKES: dict[str, Callable[[Program, float], None]] = {"kill": _kill, "stop": _stop}


def table(outcomes: list[Outcome]) -> Table:
    """One line for each seed, and the sum."""
    shown = Table(title="chaos")
    for title in ("seed", "seconds", "kills", "faults", "sent", "stored", "missing", "twice", "out of order", "resets"):
        shown.add_column(title, justify="right")

    def line(title: str, some: list[Outcome]) -> None:
        findings = [finding for outcome in some for finding in outcome.findings]
        sums = [sum(getattr(finding, name) for finding in findings)
                for name in ("sent", "stored", "missing", "twice", "out_of_order")]  # fmt: skip
        shown.add_row(
            title, f"{sum(o.seconds for o in some):.0f}", str(sum(o.kills for o in some)),
            str(sum(sum(o.faults.values()) for o in some)), *(f"{value:,}" for value in sums),
            str(sum(o.resets for o in some)),
        )  # fmt: skip

    for outcome in outcomes:
        line(str(outcome.seed) + ("" if outcome.drained else " (not drained)"), [outcome])
    line("all", outcomes)
    return shown


def run_seeds(seeds: list[int], seconds: float, directory: Path, console: Console) -> list[Outcome]:
    """Run one seed after another on one Kafka; a seed that is not exact keeps its directory."""
    outcomes = []
    with Kafka(directory / "kafka") as kafka:
        for seed in seeds:
            home = directory / f"seed-{seed}"
            with console.status(f"seed {seed}: {seconds:.0f} s of faults"):
                outcome = Chaos(seed, home, kafka).run(seconds)
            outcomes.append(outcome)
            console.print(f"seed {seed}: {'exact' if outcome.exact else 'NOT EXACT'}, {outcome.kills} kills")
            if outcome.exact:
                shutil.rmtree(home)
            else:
                console.print(f"  kept {home}; again: logbench chaos --seed {seed} --minutes {seconds / 60:g}")
    return outcomes


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", default=1, show_default=True, help="How many, one after the other.")
@click.option("--minutes", default=1.0, show_default=True, help="How long the faults of each seed last.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def chaos(seed: int, seeds: int, minutes: float, as_json: bool) -> None:
    """Kill -9 and stop everything while records flow; then count what is missing, twice, or out of order."""
    console = Console(stderr=as_json)
    directory = Path(tempfile.mkdtemp(prefix="logbench-chaos-"))
    outcomes = run_seeds(list(range(seed, seed + seeds)), minutes * 60, directory, console)
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        console.print(table(outcomes))
    exact = all(outcome.exact for outcome in outcomes)
    if exact:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if exact else 1)
