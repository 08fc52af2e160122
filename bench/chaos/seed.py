"""One seed of chaos: an installation of real processes, the faults that it goes through, and what became of records.

Two originals with a file each, in a directory of its own; further modes are twins of the two in turn. Two receivers,
each with a listener for every kind of handshake, and a fault proxy before each listener. Receivers reach the broker
through a proxy that may refuse batches in its place.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chaos.faultproxy import FaultProxy
from bench.chaos.faults import FILES, schedule
from bench.chaos.refusingbroker import RefusingBroker, RefusingThread
from bench.chaos.stalledlog import LogPipe
from bench.chaos.steppedclock import SteppedClock
from bench.chaos.strike import Striker, Targets
from bench.chaos.writer import Writer
from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed
from bench.lab.oracle import Finding, judge, read_topic
from bench.lab.processes import StartFailed, wait_until
from bench.lab.site import Site
from streams.security import stacks
from streams.security.modes import MODES
from streams.telemetry.client import NotAnswered

DRAIN_SECONDS = 240.0
CALM_SECONDS = 12.0
"""Longer than the forwarder takes to list all files again, whatever inotify told it."""
LOOK_SECONDS = 0.1
FIRST_RECORD_SECONDS = 60.0
STREAM = 'security = "{mode}"\nreceivers = {receivers}\n'
SOURCE = '[source]\ntype = "file"\npaths = ["logs/{file}/{file}.log"]\n[batch]\nlinger = "{linger}ms"\n'
TRACEBACK = "Traceback (most recent call last)"
SAID: Mapping[str, str] = {
    "file changed before its position": "read_bytes",
    "file gone unread": "bytes",
    "file read again": "possible_repeat_bytes",
    "file recognised by its content": "read_bytes",
    "files gone while stopped": "read_bytes",
    "let go of a file that may still be written": "bytes",
    "rotated file not found": "read_bytes",
    "zeros skipped": "bytes",
    "log lines dropped": "lines",
}
"""What the forwarder says of files and of its log, and the field that says how much."""


@dataclass(frozen=True)
class Outcome:
    """One seed: the faults that the installation went through, and what became of the records."""

    seed: int
    seconds: float
    faults: dict[str, int]
    cuts: int
    reused_inodes: int
    resets: dict[str, int]
    dropped: int
    drained: bool
    deaths: list[str]
    tracebacks: list[str]
    said: dict[str, tuple[int, int]]
    """How often the forwarder said something of files or its log, and of how many bytes or lines."""
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

    def __init__(self, seed: int, directory: Path, kafka: Kafka, modes: Sequence[str]) -> None:
        self.seed, self.directory, self.kafka = seed, directory, kafka
        together = list(modes) if len(modes) > 1 else list(modes) * len(FILES)
        files = [FILES[number % len(FILES)] for number in range(len(together))]
        self.sources = {f"s{seed}-{file}-{mode}": file for file, mode in zip(files, together, strict=True)}
        self.modes = dict(zip(self.sources, together, strict=True))
        self.served = stacks.by_port(MODES[mode] for mode in dict.fromkeys(modes))
        """The modes of each listener: one port serves one kind of handshake."""
        self.receivers_of: dict[str, list[str]] = {}
        """Mode → the addresses that forwarders connect to."""
        self.site = Site(directory)
        self.clock, self.log = SteppedClock(directory / "clock"), LogPipe()
        self.site.forwarder.argv[:1] = self.clock.argv  # the same command, running on this clock
        self.site.forwarder.open_output = self.log.open
        self.receivers = [self.site.receiver, self.site.make_receiver("second")]

    def run(self, seconds: float) -> Outcome:
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            self._broker_is_up()
            stack.callback(self._stop_programs)
            answers = stack.enter_context(RefusingThread(self.kafka.bootstrap))
            proxies = [
                [stack.enter_context(FaultProxy(address)) for address in addresses]
                for addresses in self._start_receivers(answers.address)
            ]
            for number, group in enumerate(self.served):
                addresses = [each[number].address for each in proxies]
                self.receivers_of |= dict.fromkeys((mode.name for mode in group), addresses)
            writers = {name: Writer(self.directory / "logs" / name, name, self.seed) for name in FILES}
            self._start_forwarder()
            striker = Striker(self._targets(answers, proxies, writers))
            for writer in writers.values():
                writer.start()
            try:
                self._first_records_are_stored()
                striker.run(schedule(self.seed, seconds))
            finally:
                for writer in writers.values():
                    writer.stop()
            drained, rows = self._drain({name: writers[source].sent for name, source in self.sources.items()})
        return Outcome(
            self.seed,
            time.monotonic() - started,
            dict(striker.counts),
            sum(proxy.cuts for each in proxies for proxy in each),
            sum(writer.reused_inodes for writer in writers.values()),
            {name: row["resets"] for name, row in rows.items()},
            sum(row["records"]["dropped"] + row["records"]["dead_lettered"] for row in rows.values()),
            drained,
            striker.deaths,
            self._tracebacks(),
            self._said(),
            [self._judged(name, writers[source]) for name, source in self.sources.items()],
        )

    def _judged(self, stream: str, writer: Writer) -> Finding:
        stored = read_topic(self.kafka.bootstrap, stream)
        return judge(stream, writer.sent, stored, source=writer.stream, may_be_lost=writer.may_be_lost)

    def _targets(
        self, answers: RefusingBroker, proxies: Sequence[Sequence[FaultProxy]], writers: Mapping[str, Writer]
    ) -> Targets:
        programs = {f"receiver {number}": program for number, program in enumerate(self.receivers, 1)}
        originals = {file: name for name, file in reversed(self.sources.items())}
        return Targets(
            programs={"forwarder": self.site.forwarder, **programs},
            kafka=self.kafka,
            answers=answers,
            proxies=proxies,
            writers=writers,
            log=self.log,
            leaves=self.site.leaves,
            rewrite=self._rewrite_stream,
            set_clock=self.clock.set,
            stored=lambda file: int(self.site.streams()[originals[file]]["records"]["acknowledged"]),
        )

    # -- installation ------------------------------------------------------------------------------------------

    def _broker_is_up(self) -> None:
        """Wait for the broker: the last seed may have ended just after it was launched."""
        broker = self.kafka.brokers[0]
        if not wait_until(broker.has_started, 60, every_seconds=LOOK_SECONDS):
            raise KafkaFailed(broker.tail())

    def _start_receivers(self, broker: str) -> Iterator[list[str]]:
        """Start each receiver; its addresses, one for each group of modes."""
        self.site.make_pki()
        for name in ("receiver", "forwarder"):
            self.site.leaves.delegate(name)
        sink = f'type = "kafka"\nbrokers = ["{broker}"]\ncreate_topics = true\nproduce_timeout = "10s"'
        modes = [json.dumps([mode.name for mode in group]) for group in self.served]
        for program in self.receivers:
            name = program.log_path.stem
            self.site.write_receiver(sink, listeners=[("localhost:0", each) for each in modes], name=name)
            program.start()
            found = [str(event["address"]) for event in program.wait_for("listening", times=len(modes))]
            fixed = list(zip(found, modes, strict=True))
            self.site.write_receiver(sink, listeners=fixed, name=name)  # the same ports after a kill
            yield found

    def _start_forwarder(self) -> None:
        self.site.write_forwarder(
            next(iter(self.receivers_of.values())), more='answer_timeout = "15s"', stop_grace="2s"
        )
        originals: dict[str, str] = {}
        for name, file in self.sources.items():
            if file in originals:
                self.site.write_stream(name, self._security(name) + f'mirror_of = "{originals[file]}"\n')
            else:
                originals[file] = name
                self.site.write_stream(name, self._security(name) + SOURCE.format(file=file, linger=30))
        self.site.start_forwarder()

    def _security(self, stream: str) -> str:
        mode = self.modes[stream]
        return STREAM.format(mode=mode, receivers=json.dumps(self.receivers_of[mode]))

    def _rewrite_stream(self, share: float) -> None:
        """Rewrite the first stream's file with a different linger."""
        name, file = next(iter(self.sources.items()))
        self.site.write_stream(name, self._security(name) + SOURCE.format(file=file, linger=20 + int(30 * share)))

    def _first_records_are_stored(self) -> None:
        """Wait until every stream has made its first scan: what was rotated before it counts as read."""
        if not self.site.wait_until_acknowledged(1, list(self.sources), FIRST_RECORD_SECONDS):
            raise StartFailed(f"not every stream has stored a record\n{self.site.forwarder.tail()}")

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

    def _said(self) -> dict[str, tuple[int, int]]:
        times, sizes = Counter[str](), Counter[str]()
        with self.site.forwarder.log_path.open("rb") as log:
            for line in log:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    size = int(entry[SAID[entry["event"]]])
                    times[entry["event"]] += 1
                    sizes[entry["event"]] += size
        return {event: (count, sizes[event]) for event, count in sorted(times.items())}


def _last_words(line: str) -> str:
    try:
        event = json.loads(line)
        return f"{event['event']}: {event['exception'].splitlines()[-1]}"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return line
