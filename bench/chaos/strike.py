"""Injects a schedule of faults into an installation of real processes.

Each fault is a generator: it does its first part, yields the seconds until its next part is due, and so on until it is
repaired. So faults of different targets overlap, and all of it happens in the thread that owns the processes.
"""

from __future__ import annotations

import heapq
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count

from bench.chaos.faultproxy import FaultProxy
from bench.chaos.faults import Fault
from bench.lab.feeder import Feeder
from bench.lab.kafka import Kafka
from bench.lab.site import Program

CUT_BYTES, CUT_ANSWER_BYTES = 40_000, 1_500
LONGEST_DELAY_SECONDS = 0.3
SLOWEST, FASTEST = 10_000, 100_000
"""Bytes per second of a throttled link."""

LONGEST_STEP_SECONDS = 3 * 3600.0
"""Largest step of the forwarder's clock, back or ahead: beyond the hour ahead that a topic accepts by default."""

Parts = Iterator[float]


class Striker:
    """`programs` by the names that the schedule uses; `proxies[0]` stands before receiver 1."""

    def __init__(
        self,
        programs: Mapping[str, Program],
        kafka: Kafka,
        proxies: Sequence[FaultProxy],
        feeders: Mapping[str, Feeder],
        rewrite: Callable[[float], None],
        set_clock: Callable[[float], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.deaths: list[str] = []
        """Programs that ended although no fault had killed them."""
        self._programs, self._kafka, self._proxies, self._feeders = programs, kafka, proxies, feeders
        self._rewrite, self._set_clock = rewrite, set_clock
        self._down: set[str] = set()
        self._verbs: dict[str, Callable[[Fault], Parts]] = {
            "kill": self._kill,
            "swap": self._swap,
            "stop": self._stop,
            "stall": self._stop,
            "reload": self._reload,
            "rotate": self._rotate,
            "step": self._step,
            "cut": self._cut,
            "delay": self._delay,
            "throttle": self._throttle,
            "hole": self._hole,
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
        for proxy in self._proxies:
            proxy.heal()

    def _begin(self, fault: Fault) -> Parts:
        self.counts[fault.kind] += 1
        yield from self._verbs[fault.verb](fault)

    def _look_for_deaths(self) -> None:
        for name, program in self._programs.items():
            if name not in self._down and not program.running():
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
            self._programs[fault.whom].signal(signal.SIGSTOP)
            yield fault.seconds
            self._programs[fault.whom].signal(signal.SIGCONT)

    def _take_down(self, name: str) -> None:
        self._down.add(name)
        self._programs[name].kill()

    def _put_up(self, name: str) -> None:
        self._programs[name].start()
        self._down.discard(name)

    def _reload(self, fault: Fault) -> Parts:
        forwarder = self._programs["forwarder"]
        self._rewrite(fault.size)
        if any(event.get("event") == "admin listening" for event in forwarder.events()):
            forwarder.signal(signal.SIGHUP)  # earlier it would end the process: the handler is not installed yet
        else:
            self.counts[fault.kind] -= 1
        yield from ()

    def _step(self, fault: Fault) -> Parts:
        self._set_clock((2 * fault.size - 1) * LONGEST_STEP_SECONDS)
        yield fault.seconds
        self._set_clock(0.0)

    # -- files and links ---------------------------------------------------------------------------------------

    def _rotate(self, fault: Fault) -> Parts:
        self._feeders[fault.whom].rotate()
        yield from ()

    def _proxy(self, fault: Fault) -> FaultProxy:
        return self._proxies[int(fault.whom.removeprefix("link ")) - 1]

    def _cut(self, fault: Fault) -> Parts:
        self._proxy(fault).cut(int(fault.size * (CUT_ANSWER_BYTES if fault.coin else CUT_BYTES)), answers=fault.coin)
        yield from ()

    def _delay(self, fault: Fault) -> Parts:
        self._proxy(fault).delay(fault.size * LONGEST_DELAY_SECONDS)
        yield fault.seconds
        self._proxy(fault).delay(0.0)

    def _throttle(self, fault: Fault) -> Parts:
        self._proxy(fault).throttle(SLOWEST + fault.size * (FASTEST - SLOWEST))
        yield fault.seconds
        self._proxy(fault).throttle(0.0)

    def _hole(self, fault: Fault) -> Parts:
        self._proxy(fault).hold()
        yield fault.seconds
        self._proxy(fault).release()
