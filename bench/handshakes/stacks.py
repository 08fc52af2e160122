"""`logbench stacks`: what our own TLS 1.3 costs beside OpenSSL, for handshakes, for records and over a long link.

Handshakes run in memory, both ends in this process: the CPU time of a side is that of the calls of its endpoint, from
its making to its completion, without sockets. Chains are a leaf below a root with ML-DSA. The long link is the
product's (transport.py and listener.py), over TCP on this host. All take turns, forwards in one round and backwards in
the next; a ratio is that of the same round, and CPU time does not count other programs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import uvloop

from bench.figures import bootstrap, report
from bench.handshakes.parties import HOST, KINDS, Sides
from streams.errors import LinkError
from streams.security.connecting import connect
from streams.security.endpoint import Endpoint, Party
from streams.security.listener import listen
from streams.security.transport import Link

CHUNK = 128 * 1024
"""Bytes of one write, eight records: blocks of a large batch."""
MEGABYTE = 1_000_000
LINK_SECONDS = 120.0
OURS, THEIRS = "KEMTLS", "OpenSSL: ECDSA"
"""The long links: what mode kemtls would use, and what mode hybrid does."""


class Goal(NamedTuple):
    """A ratio between two kinds of handshake, and the most that it should be."""

    name: str
    kind: str
    base: str
    mutual: bool
    side: str
    most: float


GOALS = (
    Goal("KEMTLS, chains cached", "KEMTLS", "OpenSSL: ML-DSA-44", False, "both", 0.65),
    Goal("KEMTLS, chains cached", "KEMTLS", "OpenSSL: ML-DSA-44", True, "both", 0.5),
    Goal("KEMTLS, chains not cached", "KEMTLS, new chains", "OpenSSL: ML-DSA-44", False, "both", 0.85),
    Goal("KEMTLS, chains not cached", "KEMTLS, new chains", "OpenSSL: ML-DSA-44", True, "both", 0.65),
    Goal("the receiver of KEMTLS", "KEMTLS", "OpenSSL: ML-DSA-65", True, "server", 0.5),
)


# -- handshakes ----------------------------------------------------------------------------------------------------


def clock_cost() -> int:
    """Nanoseconds between two readings of the clock: reading it is a system call, and a handshake takes thirty."""
    clock = time.thread_time_ns
    return min(-(clock() - clock()) for _ in range(1000))


CLOCK = clock_cost()


def shake_hands(sides: Sides) -> tuple[int, int]:
    """One handshake in memory: CPU nanoseconds of the client and of the server, without those of the clock."""
    spent, clock = [0, 0], time.thread_time_ns
    started = clock()
    client: Endpoint = sides.client.endpoint(HOST)
    made = clock()
    server: Endpoint = sides.server.endpoint()
    spent[0] += made - started - CLOCK
    spent[1] += clock() - made - CLOCK
    for _ in range(8):
        for index, (one, other) in enumerate(((client, server), (server, client))):
            started = clock()
            if not one.complete:
                one.handshake()
            parts = one.take()
            handed = clock()
            for part in parts:
                other.feed(part)
            taken = clock()
            spent[index] += handed - started - CLOCK
            spent[1 - index] += taken - handed - CLOCK
        if client.complete and server.complete:
            return spent[0], spent[1]
    raise AssertionError("the handshake does not end")


Costs = dict[tuple[str, bool], list[tuple[float, float]]]
"""By kind and whether mutual: µs of the client and of the server, one pair a round."""


def handshake_costs(directory: Path, rounds: int, handshakes: int) -> Costs:
    """The first round is discarded."""
    sides = {(name, mutual): make(directory, mutual) for name, make in KINDS.items() for mutual in (False, True)}
    costs: Costs = {key: [] for key in sides}
    for number in range(rounds + 1):
        for key in list(sides)[:: -1 if number % 2 else 1]:
            pairs = [shake_hands(sides[key]) for _ in range(handshakes)]
            if number:
                client, server = (sum(side) / handshakes / 1e3 for side in zip(*pairs, strict=True))
                costs[key].append((client, server))
    return costs


def _of(pairs: Sequence[tuple[float, float]], side: str) -> list[float]:
    pick: Callable[[tuple[float, float]], float] = {"server": lambda pair: pair[1], "both": sum}.get(
        side, lambda pair: pair[0]
    )
    return [pick(pair) for pair in pairs]


def handshake_rows(costs: Costs) -> Iterator[dict[str, Any]]:
    for (name, mutual), pairs in costs.items():
        sides = {f"{side}_us": bootstrap.estimate(_of(pairs, side))._asdict() for side in ("client", "server", "both")}
        yield {"handshake": name, "mutual": mutual, **sides}


def goal_rows(costs: Costs) -> Iterator[dict[str, Any]]:
    for goal in GOALS:
        ours, base = (_of(costs[name, goal.mutual], goal.side) for name in (goal.kind, goal.base))
        yield {
            "what": f"{goal.name}, {'mutual' if goal.mutual else 'server only'} / {goal.base}",
            "ratio": bootstrap.ratio(base, ours)._asdict(),
            "goal": goal.most,
        }


# -- records and links ---------------------------------------------------------------------------------------------


def seal_and_open(sides: Sides, total: int) -> float:
    """Records in memory: CPU seconds per GB of both ends."""
    client, server = sides.client.endpoint(HOST), sides.server.endpoint()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            if not one.complete:
                one.handshake()
            for part in one.take():
                other.feed(part)
    data, started = bytes(CHUNK), time.thread_time()
    for _ in range(total // CHUNK):
        client.write(data)
        for part in client.take():
            server.feed(part)
        while server.read():
            pass
    return (time.thread_time() - started) / total * 1e9


async def long_link(client: Party, server: Party, total: int) -> tuple[float, float]:
    """One link over TCP: CPU seconds per GB of both ends, and MB/s."""
    done = asyncio.Event()

    async def take(link: Link) -> None:
        received = 0
        try:
            while data := await link.receive():
                received += len(data)
                if received >= total:
                    done.set()
        except LinkError:
            link.abort()

    listener = await listen("127.0.0.1:0", server, take, on_failure=print)
    link = await connect(listener.address, client, server_name=HOST)
    data, cpu, started = bytes(CHUNK), time.process_time(), time.perf_counter()
    for _ in range(total // CHUNK):
        link.write(data)
        await link.drain()
    async with asyncio.timeout(LINK_SECONDS):
        await done.wait()
    cpu, passed = time.process_time() - cpu, time.perf_counter() - started
    await link.close()
    await listener.close()
    return cpu / total * 1e9, total / passed / MEGABYTE


def data_costs(directory: Path, rounds: int, total: int) -> Mapping[str, Mapping[str, list[float]]]:
    """By kind: CPU s/GB of records in memory and of the link, and the link's MB/s, one of each a round."""
    sides = {name: KINDS[name](directory, True) for name in (THEIRS, OURS)}
    found: dict[str, dict[str, list[float]]] = {name: {"records": [], "link": [], "rate": []} for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            records = seal_and_open(sides[name], total)
            link, rate = uvloop.run(long_link(sides[name].client, sides[name].server, total))
            if number:
                for key, value in (("records", records), ("link", link), ("rate", rate)):
                    found[name][key].append(value)
    return found


def data_rows(costs: Mapping[str, Mapping[str, list[float]]]) -> Iterator[dict[str, Any]]:
    names = {
        "records": ("records in memory, CPU s/GB", 1.15),
        "link": ("long link, CPU s/GB", 1.15),
        "rate": ("long link, MB/s", 0.85),
    }
    for key, (name, goal) in names.items():
        theirs, ours = costs[THEIRS][key], costs[OURS][key]
        yield {
            "what": name,
            "openssl": bootstrap.estimate(theirs)._asdict(),
            "ours": bootstrap.estimate(ours)._asdict(),
            "ratio": bootstrap.ratio(theirs, ours)._asdict(),
            "goal": goal,
        }


# -- the command ---------------------------------------------------------------------------------------------------


@click.command(short_help="Measure our own TLS 1.3 beside OpenSSL.")
@click.option("--rounds", type=click.IntRange(3), default=20, show_default=True, help="Measured rounds.")
@click.option(
    "--handshakes", type=click.IntRange(1), default=20, show_default=True, help="Handshakes per kind and round."
)
@click.option(
    "--size",
    type=report.Size(),
    default="64MiB",
    show_default=True,
    help="Data per round, in memory and over a link.",
)
@report.as_json_option
def stacks(rounds: int, handshakes: int, size: int, as_json: bool) -> None:
    """CPU of handshakes and records of our own TLS 1.3 beside OpenSSL's, both ends, in one run.

    Handshakes are counted without sockets, in µs per handshake, for each kind of authentication; the long link is one
    TCP connection on this host. Ratios divide ours by OpenSSL's of the same round, with a 95 % interval.
    """
    with report.workplace(as_json) as (directory, console):
        with console.status("handshakes"):
            costs = handshake_costs(directory, rounds, handshakes)
        with console.status("records"):
            data = list(data_rows(data_costs(directory, rounds, -(-size // CHUNK) * CHUNK)))
    shaken, goals = list(handshake_rows(costs)), list(goal_rows(costs))
    if as_json:
        report.emit("stacks", shaken, ratios=goals, data=data)
        return
    report.show(console, "CPU of a handshake, µs [95 %]", HANDSHAKE_COLUMNS, shaken)
    report.show(console, "handshakes: ours / OpenSSL's [95 %]", GOAL_COLUMNS, goals)
    report.show(console, "records: 128 KiB a write, 16 KiB a record", DATA_COLUMNS, data)


def _span(key: str, form: str) -> Callable[[report.Row], str]:
    return lambda row: bootstrap.Estimate(**row[key]).text(form)


HANDSHAKE_COLUMNS: Sequence[report.Column] = (
    ("handshake", lambda r: r["handshake"]),
    ("authenticates", lambda r: "both" if r["mutual"] else "the server"),
    ("client", _span("client_us", ".0f")),
    ("server", _span("server_us", ".0f")),
    ("both ends", _span("both_us", ".0f")),
)
GOAL_COLUMNS: Sequence[report.Column] = (
    ("ratio of", lambda r: r["what"]),
    ("CPU", _span("ratio", ".2f")),
    ("at most", lambda r: f"{r['goal']:g}"),
)
DATA_COLUMNS: Sequence[report.Column] = (
    ("what", lambda r: r["what"]),
    ("OpenSSL", _span("openssl", ".2f")),
    ("ours", _span("ours", ".2f")),
    ("ratio", _span("ratio", ".2f")),
    ("goal", lambda r: f"{r['goal']:g}"),
)
