"""Injects a schedule of faults into an installation of real processes.

Each fault is a generator: it does its first part, yields the seconds until its next part is due, and so on until it is
repaired. So faults of different targets overlap, and all of it happens in the thread that owns the processes.
"""

from __future__ import annotations

import contextlib
import heapq
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, cycle

from bench.chaos.faultproxy import FaultProxy
from bench.chaos.faults import Fault
from bench.chaos.refusingbroker import Judge, RefusingBroker, Verdict
from bench.chaos.stalledlog import LogPipe
from bench.chaos.writer import Writer
from bench.lab.kafka import Kafka
from bench.lab.leaves import Leaves
from bench.lab.site import Program
from streams.telemetry.client import NotAnswered

CUT_BYTES, CUT_ANSWER_BYTES = 40_000, 1_500
LONGEST_DELAY_SECONDS = 0.3
SLOWEST, FASTEST = 10_000, 100_000
"""Bytes per second of a throttled link."""

LONGEST_STEP_SECONDS = 3 * 3600.0
"""Largest step of the forwarder's clock, back or ahead: beyond the hour ahead that a topic accepts by default."""

ANSWERS = (-1, 2, 19)
"""Errors that a broker gives for its own troubles: unknown, corrupt message, too few replicas."""
Parts = Iterator[float]


@dataclass(frozen=True)
class Targets:
    """What faults are injected into. `proxies[0]` are those before receiver 1; the others by the schedule's names."""

    programs: Mapping[str, Program]
    kafka: Kafka
    answers: RefusingBroker
    """What comes between the receivers and the broker."""
    proxies: Sequence[Sequence[FaultProxy]]
    writers: Mapping[str, Writer]
    log: LogPipe
    leaves: Leaves
    rewrite: Callable[[float], None]
    set_clock: Callable[[float], None]
    stored: Callable[[str], int]
    """How many records of a file are stored; raises NotAnswered, KeyError."""


class Striker:
    """Injects faults into its targets, and repairs them."""

    def __init__(self, targets: Targets) -> None:
        self.counts: Counter[str] = Counter()
        self.deaths: list[str] = []
        """Programs that ended although no fault had killed them."""
        self._programs, self._kafka, self._targets = targets.programs, targets.kafka, targets
        self._away: set[str] = set()
        """Programs that a fault has killed or stopped."""
        self._stored: Counter[str] = Counter()
        self._verbs: dict[str, Callable[[Fault], Parts]] = {
            "kill": self._kill,
            "swap": self._swap,
            "stop": self._stop,
            "hang": self._stop,
            "reload": self._reload,
            "step": self._step,
            "stall": self._stall,
            "renew": self._renew,
            "delegate": self._renew,
            "cut": self._cut,
            "delay": self._delay,
            "throttle": self._throttle,
            "silence": self._silence,
            "refuse": self._refuse,
            "unmount": self._unmount,
            "recycle": self._recycle,
            **dict.fromkeys(("rotate", "copy", "truncate", "hole", "edit"), self._change_file),
        }

    def run(self, faults: Iterable[Fault]) -> None:
        """Inject each fault at its time; when this returns, everything is repaired."""
        started, ids = time.monotonic(), count()
        agenda = [(fault.at, next(ids), self._begin(fault)) for fault in faults]
        while agenda:
            at, _, parts = heapq.heappop(agenda)
            time.sleep(max(started + at - time.monotonic(), 0.0))
            self._look_for_deaths()
            pause = next(parts, None)
            if pause is not None:
                heapq.heappush(agenda, (at + pause, next(ids), parts))
        for proxy in chain(*self._targets.proxies):
            proxy.heal()

    def _begin(self, fault: Fault) -> Parts:
        self.counts[fault.kind] += 1
        yield from self._verbs[fault.verb](fault)

    def _look_for_deaths(self) -> None:
        for name, program in self._programs.items():
            if name not in self._away and not program.running():
                self.deaths.append(f"{name}:\n{program.tail(10)}")
                program.start()

    # -- processes ---------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> Parts:
        if fault.whom == "broker":
            self._kafka.kill()
            yield fault.seconds
            self._kafka.launch()
        else:
            self._take_down(fault.whom)
            yield fault.seconds
            self._put_up(fault.whom)

    def _swap(self, fault: Fault) -> Parts:
        """Kill a receiver while its produce requests sit unanswered in the buffers of a stopped broker."""
        self._kafka.pause()
        yield fault.seconds * 0.3
        self._take_down(fault.whom)
        yield fault.seconds * 0.4
        self._kafka.resume()
        yield fault.seconds * 0.3
        self._put_up(fault.whom)

    def _stop(self, fault: Fault) -> Parts:
        if fault.whom == "broker":
            self._kafka.pause()
            yield fault.seconds
            self._kafka.resume()
        else:
            self._away.add(fault.whom)
            self._programs[fault.whom].signal(signal.SIGSTOP)
            yield fault.seconds
            self._programs[fault.whom].signal(signal.SIGCONT)
            self._away.discard(fault.whom)

    def _take_down(self, name: str) -> None:
        self._away.add(name)
        self._programs[name].kill()

    def _put_up(self, name: str) -> None:
        self._programs[name].start()
        self._away.discard(name)

    def _reload(self, fault: Fault) -> Parts:
        self._targets.rewrite(fault.size)
        if self._is_up("forwarder"):
            self._programs["forwarder"].signal(signal.SIGHUP)
        else:
            self.counts[fault.kind] -= 1
        yield from ()

    def _is_up(self, name: str) -> bool:
        """True for a program that has read its configuration and its certificates."""
        events = self._programs[name].events()
        return name not in self._away and any(event.get("event") == "admin listening" for event in events)

    def _renew(self, fault: Fault) -> Parts:
        """Renew leaves or the delegated key of a program; certificate and key change one after the other.

        A receiver looks for new files every few seconds, or at once after SIGHUP; a forwarder uses them for new links.
        """
        programs = [name for name in self._programs if name.startswith(fault.whom)]
        if not all(map(self._is_up, programs)):  # one that starts just now would refuse half a renewal, and end
            self.counts[fault.kind] -= 1
            return
        (self._targets.leaves.issue if fault.verb == "renew" else self._targets.leaves.delegate)(fault.whom)
        for name in programs if fault.coin else ():
            self._programs[name].signal(signal.SIGHUP)
        yield from ()

    def _step(self, fault: Fault) -> Parts:
        self._targets.set_clock((2 * fault.size - 1) * LONGEST_STEP_SECONDS)
        yield fault.seconds
        self._targets.set_clock(0.0)

    def _stall(self, fault: Fault) -> Parts:
        self._targets.log.stall()
        yield fault.seconds
        self._targets.log.resume()

    # -- files -------------------------------------------------------------------------------------------------

    def _change_file(self, fault: Fault) -> Parts:
        writer = self._targets.writers[fault.whom]
        match fault.verb:
            case "rotate":
                writer.rotate()
            case "copy":
                writer.copy(self._stored_of(fault.whom), rotated_name=fault.coin)
            case "truncate":
                writer.copy_and_truncate(goes_on=fault.coin, between=max(fault.size - 0.5, 0.0))
            case "hole":
                writer.make_hole(fault.size)
            case "edit":
                writer.edit(fault.size, at_end=fault.coin)
        yield from ()

    def _recycle(self, fault: Fault) -> Parts:
        self._targets.writers[fault.whom].recycle(self._stored_of(fault.whom))
        yield from ()

    def _stored_of(self, name: str) -> int:
        """How many records of a file are stored, as far as is known."""
        if "forwarder" not in self._away:
            with contextlib.suppress(NotAnswered, KeyError):
                self._stored[name] = self._targets.stored(name)
        return self._stored[name]

    def _unmount(self, fault: Fault) -> Parts:
        writer = self._targets.writers[fault.whom]
        writer.unmount(leaves_empty=fault.coin)
        yield fault.seconds
        writer.mount()

    # -- links -------------------------------------------------------------------------------------------------

    def _proxies(self, fault: Fault) -> Sequence[FaultProxy]:
        return self._targets.proxies[int(fault.whom.removeprefix("link ")) - 1]

    def _cut(self, fault: Fault) -> Parts:
        size = int(fault.size * (CUT_ANSWER_BYTES if fault.coin else CUT_BYTES))
        for proxy in self._proxies(fault):
            proxy.cut(size, answers=fault.coin)
        yield from ()

    def _delay(self, fault: Fault) -> Parts:
        yield from self._for_a_while(fault, FaultProxy.delay, fault.size * LONGEST_DELAY_SECONDS)

    def _throttle(self, fault: Fault) -> Parts:
        yield from self._for_a_while(fault, FaultProxy.throttle, SLOWEST + fault.size * (FASTEST - SLOWEST))

    def _for_a_while(self, fault: Fault, change: Callable[[FaultProxy, float], None], value: float) -> Parts:
        for proxy in self._proxies(fault):
            change(proxy, value)
        yield fault.seconds
        for proxy in self._proxies(fault):
            change(proxy, 0.0)

    def _silence(self, fault: Fault) -> Parts:
        for proxy in self._proxies(fault):
            proxy.hold()
        yield fault.seconds
        for proxy in self._proxies(fault):
            proxy.release()

    def _refuse(self, fault: Fault) -> Parts:
        """A broker's errors, or an address at which nothing listens."""
        if fault.whom == "broker":
            self._targets.answers.judge = _refusing(fault)
            yield fault.seconds
            self._targets.answers.judge = lambda _: None
            return
        for proxy in self._proxies(fault):
            proxy.refuse()
        yield fault.seconds
        for proxy in self._proxies(fault):
            proxy.listen()


def _refusing(fault: Fault) -> Judge:
    """One error after the other; which one begins depends on the fault. With its coin, what is refused is stored."""
    codes = cycle(ANSWERS)
    for _ in range(int(fault.size * len(ANSWERS))):
        next(codes)
    return lambda _: Verdict(next(codes), stored=fault.coin)
