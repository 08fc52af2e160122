"""What chaos does, and when: a schedule that follows from a seed alone. Nothing here touches a process or a clock.

A fault has targets, and a target has one fault at a time; faults of different targets overlap at random. So the
schedule is the same for the same seed on any machine; what the processes do meanwhile is not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

RECEIVERS = (1, 2)
FILES = ("a", "b")
GAP_SECONDS = (0.15, 1.45)
COIN = 0.4
BROKER_START_SECONDS = 8.0
"""A killed broker is left alone until it is up again: one that never comes up would test nothing but timeouts."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault: its weight among the others, the targets that it occupies, how long until it is repaired."""

    weight: float
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Fault:
    """One fault at its time, repaired after `seconds`. `size` in [0, 1) and `coin` decide what its kind leaves open."""

    at: float
    kind: str
    seconds: float
    size: float
    coin: bool

    @property
    def verb(self) -> str:
        return self.kind.partition(" ")[0]

    @property
    def whom(self) -> str:
        return self.kind.partition(" ")[2]

    @property
    def kills(self) -> bool:
        return self.verb in ("kill", "swap")


def _kinds() -> dict[str, Kind]:
    kinds = {
        "kill forwarder": Kind(6.0, ("forwarder",), (0.0, 1.5)),
        "kill broker": Kind(1.5, ("broker",), (0.0, 2.0)),
        "stop forwarder": Kind(1.0, ("forwarder",), (0.5, 3.0)),
        "stop broker": Kind(1.5, ("broker",), (0.5, 3.0)),
        "refuse broker": Kind(1.5, ("answers",), (0.5, 8.0)),
        "reload": Kind(2.0, ("forwarder",)),
        "step clock": Kind(1.5, ("clock",), (0.5, 5.0)),
        "stall log": Kind(1.0, ("log",), (1.0, 8.0)),
        "renew receiver": Kind(0.7, ("leaves",)),
        "renew forwarder": Kind(0.7, ("leaves",)),
        "delegate receiver": Kind(0.7, ("leaves",)),
        "delegate forwarder": Kind(0.7, ("leaves",)),
    }
    for number in RECEIVERS:
        receiver, link = f"receiver {number}", f"link {number}"
        kinds |= {
            f"kill {receiver}": Kind(3.0, (receiver,), (0.0, 1.5)),
            f"swap {receiver}": Kind(1.5, (receiver, "broker"), (0.6, 3.0)),
            f"stop {receiver}": Kind(1.0, (receiver,), (0.5, 3.0)),
            # Longer than the forwarder waits: it moves to the other receiver, then this one wakes up.
            f"hang {receiver}": Kind(0.7, (receiver,), (5.0, 8.0)),
            f"cut {link}": Kind(2.5, (link,)),
            f"delay {link}": Kind(1.0, (link,), (1.0, 4.0)),
            f"throttle {link}": Kind(1.0, (link,), (1.0, 4.0)),
            f"silence {link}": Kind(1.2, (link,), (1.0, 8.0)),
            f"refuse {link}": Kind(1.2, (link,), (0.2, 6.0)),
        }
    for name in FILES:
        file = (f"file {name}",)
        kinds |= {
            f"rotate {name}": Kind(1.2, file),
            f"copy {name}": Kind(0.8, file),
            f"truncate {name}": Kind(1.2, file),
            f"hole {name}": Kind(0.8, file),
            f"edit {name}": Kind(1.0, file),
            f"recycle {name}": Kind(1.2, file),
            f"unmount {name}": Kind(1.0, file, (0.5, 6.0)),
        }
    return kinds


KINDS = _kinds()


def schedule(seed: int, seconds: float) -> Iterator[Fault]:
    """The faults of a seed in the order of their times; a longer run begins like a shorter one."""
    dice = random.Random(seed)
    free_at: dict[str, float] = {}
    now = dice.uniform(*GAP_SECONDS)
    while now < seconds:
        able = [name for name, kind in KINDS.items() if all(free_at.get(t, 0.0) <= now for t in kind.targets)]
        name = dice.choices(able, [KINDS[name].weight for name in able])[0]
        kind = KINDS[name]
        lasts = dice.uniform(*kind.seconds)
        yield Fault(now, name, lasts, dice.random(), dice.random() < COIN)
        restart = BROKER_START_SECONDS if name == "kill broker" else 0.0
        free_at |= dict.fromkeys(kind.targets, now + lasts + restart)
        now += dice.uniform(*GAP_SECONDS)
