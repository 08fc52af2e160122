"""`logbench handshakes`: time, CPU, bytes and flights of a handshake in each mode, over any round trip.

Links are those of the product (transport.py and listener.py), both ends authenticated by the project's own PKI. The
client is this process, the server another, the delaying proxy a third; without a delay there is no proxy. Modes take
turns, forwards in one round and backwards in the next. A handshake lasts from ClientHello written to complete at the
client, which sends first and may do so from then on; its first answer arrives a round trip later. The next handshake
begins when that answer has arrived: by then the server has finished with the last one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from bench.figures import bootstrap, report
from bench.figures.measure import percentile
from bench.handshakes import picture, published, wire_bytes
from bench.handshakes.delayproxy import delay_proxy, error_rows
from bench.handshakes.server import start_server
from bench.handshakes.tap import tapped
from bench.lab.newlinks import credentials
from bench.lab.site import Site
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.endpoint import Party
from streams.security.modes import MODES, check

WARM_UP_ROUNDS = 1
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
PAIRS = (
    ("hybrid / classical-tls12", "classical-tls12", "hybrid"),
    ("classical / hybrid", "hybrid", "classical"),
    ("pq-auth / hybrid", "hybrid", "pq-auth"),
    ("kemtls / pq-auth", "pq-auth", "kemtls"),
)
"""The compared pairs: name, base, and the mode that is divided by the base. The first is Figure 1 of 2022, whose sides
differ in version and group; the sides of the second differ in the group alone, those of the third in the certificates.
In the fourth a KEM takes the place of the handshake's signatures.
"""


@dataclass
class Turns:
    """The handshakes of one mode at one round-trip time, round by round."""

    handshake_ms: list[list[float]] = field(default_factory=list)
    answer_ms: list[list[float]] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)

    @property
    def cpu_ms(self) -> list[float]:
        """CPU of both ends together."""
        return [client + server for client, server in zip(self.client_cpu_ms, self.server_cpu_ms, strict=True)]


# -- measuring -----------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """CPU time of a process in nanosecond steps, from its own clock (MAKE_PROCESS_CPUCLOCK, Linux posix-timers.h)."""
    return time.clock_gettime((~pid << 3) | 2)


async def shake_hands(address: str, mode: str, party: Party) -> tuple[float, float]:
    """Open and close one link: ms until the handshake was complete, and until the first answer."""
    link = await connect(address, party, server_name="localhost")
    complete = time.perf_counter()
    check(MODES[mode], link.facts)
    link.write(b"?")
    answer = await link.receive()
    seconds = link.facts.handshake_seconds
    answered = seconds + time.perf_counter() - complete
    assert answer == b"?"
    await link.close()
    return seconds * 1e3, answered * 1e3


async def take_turns(
    addresses: Mapping[str, str], server_pid: int, parties: Mapping[str, Party], *, rounds: int, handshakes: int
) -> dict[str, Turns]:
    """`handshakes` of each mode in each round, at the mode's address; the first rounds are discarded."""
    turns = {mode: Turns() for mode in parties}
    for number in range(rounds + WARM_UP_ROUNDS):
        for mode in list(parties)[:: -1 if number % 2 else 1]:
            server, client = cpu_seconds(server_pid), time.process_time()
            pairs = [await shake_hands(addresses[mode], mode, parties[mode]) for _ in range(handshakes)]
            client, server = time.process_time() - client, cpu_seconds(server_pid) - server
            if number >= WARM_UP_ROUNDS:
                turns[mode].handshake_ms.append([handshake for handshake, _ in pairs])
                turns[mode].answer_ms.append([answer for _, answer in pairs])
                turns[mode].client_cpu_ms.append(client / handshakes * 1e3)
                turns[mode].server_cpu_ms.append(server / handshakes * 1e3)
    return turns


def weigh(target: str, mode: str, pki: Path, key_log: Path) -> dict[str, Any]:
    """The size on the wire of the parts of a mode's handshake."""
    party = stacks.client(MODES[mode], credentials(pki, "forwarder"), key_log=key_log)
    facts, pieces = uvloop.run(tapped(target, party))
    secrets = key_log.read_text() if key_log.exists() else ""
    messages, bytes_each_way = wire_bytes.take_apart(pieces, cipher=facts.cipher, key_log=secrets)
    weights = wire_bytes.weigh(messages, bytes_each_way, facts.version)
    return {"mode": mode, "version": facts.version, "group": facts.group, **weights._asdict()}


@contextlib.contextmanager
def delayed(directory: Path, targets: Mapping[str, str], rtt_seconds: float) -> Iterator[Mapping[str, str]]:
    """The same targets, each through a delaying proxy; without a delay, the targets themselves."""
    if not rtt_seconds:
        yield targets
        return
    with contextlib.ExitStack() as stack:
        proxies = {each: delay_proxy(directory, each, rtt_seconds) for each in dict.fromkeys(targets.values())}
        addresses = {target: stack.enter_context(proxy) for target, proxy in proxies.items()}
        yield {mode: addresses[target] for mode, target in targets.items()}


def measure(
    directory: Path, console: Console, rtts: Sequence[float], modes: Sequence[str], *, rounds: int, handshakes: int
) -> dict[str, list[dict[str, Any]]]:
    """Everything that the command shows: rows by round trip and mode, ratios, bytes on the wire, the proxy's error."""
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    pki = directory / "pki"
    Site(directory).make_pki()
    server, targets = start_server(directory)
    try:
        wire = [weigh(targets[mode], mode, pki, directory / f"{mode}.keys") for mode in modes]
        parties = {mode: stacks.client(MODES[mode], credentials(pki, "forwarder")) for mode in modes}
        for rtt_ms in rtts:
            with console.status(f"round trip {rtt_ms:g} ms"), delayed(directory, targets, rtt_ms / 1e3) as addresses:
                turns = uvloop.run(take_turns(addresses, server.pid, parties, rounds=rounds, handshakes=handshakes))
            rows += [summary(rtt_ms, mode, each) for mode, each in turns.items()]
            ratios += compare(rtt_ms, turns)
        with console.status("measuring the proxy's error"):
            late = error_rows(directory, rtts)
    finally:
        server.stop()
    return {"rows": rows, "ratios": ratios, "wire": wire, "published": list(published.rows()), "proxy": late}


# -- statistics ----------------------------------------------------------------------------------------------------


def pooled(rounds: Sequence[Sequence[float]], share: float) -> dict[str, float]:
    """A percentile of all rounds' values together, and its interval, from resampling whole rounds."""

    def middle(drawn: Sequence[float]) -> float:
        return percentile(chain.from_iterable(rounds[int(number)] for number in drawn), share)

    return bootstrap.estimate(range(len(rounds)), middle=middle)._asdict()


def summary(rtt_ms: float, mode: str, turns: Turns) -> dict[str, Any]:
    """One mode at one round-trip time."""
    return {
        "rtt_ms": rtt_ms,
        "mode": mode,
        "handshakes": sum(map(len, turns.handshake_ms)),
        **{f"handshake_{name}_ms": pooled(turns.handshake_ms, share) for name, share in SHARES.items()},
        "answer_p50_ms": pooled(turns.answer_ms, 0.5),
        "client_cpu_ms": bootstrap.estimate(turns.client_cpu_ms)._asdict(),
        "server_cpu_ms": bootstrap.estimate(turns.server_cpu_ms)._asdict(),
    }


def compare(rtt_ms: float, turns: Mapping[str, Turns]) -> Iterator[dict[str, Any]]:
    """The pairs whose two modes were measured; ratios are of medians of the same round."""
    for name, base, other in PAIRS:
        if base in turns and other in turns:
            one, two = turns[base], turns[other]
            handshakes = [[percentile(values, 0.5) for values in side.handshake_ms] for side in (one, two)]
            answers = [[percentile(values, 0.5) for values in side.answer_ms] for side in (one, two)]
            yield {
                "rtt_ms": rtt_ms,
                "pair": name,
                "handshake": bootstrap.ratio(*handshakes)._asdict(),
                "verdict": bootstrap.verdict(*handshakes),
                "answer": bootstrap.ratio(*answers)._asdict(),
                "cpu": bootstrap.ratio(one.cpu_ms, two.cpu_ms)._asdict(),
            }


def _modes(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    names = value.split(",")
    if unknown := sorted(set(names) - set(MODES)):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; the modes are {', '.join(MODES)}")
    return names


@click.command(short_help="Measure TLS handshakes per mode and round-trip time.")
@click.option(
    "--rtt",
    "rtts",
    type=report.Numbers(0, 1000),
    default="0,1,10,50",
    show_default=True,
    help="Round-trip times in ms, separated by commas; 0 uses no proxy.",
)
@click.option(
    "--modes",
    default=",".join(MODES),
    show_default=True,
    callback=_modes,
    help="Security modes, separated by commas.",
)
@click.option(
    "--rounds",
    type=click.IntRange(5),
    default=20,
    show_default=True,
    help="Measured rounds, in addition to one warm-up round.",
)
@click.option(
    "--handshakes", type=click.IntRange(1), default=10, show_default=True, help="Handshakes per mode and round."
)
@click.option(
    "--png", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the picture into this file (matplotlib)."
)
@report.as_json_option
def handshakes(
    rtts: list[float], modes: list[str], rounds: int, handshakes: int, png: Path | None, as_json: bool
) -> None:
    """Time, CPU, bytes and flights of a TLS handshake in each mode, over any round trip.

    Times are in ms, from ClientHello written to complete at the client; the TCP connect is not included and not
    delayed. CPU is that of the whole process for one link: connect, handshake, one answer, close. Bytes and flights are
    counted on the wire. Every figure but those has a 95 % interval over the rounds.

    Delays come from a proxy; a table shows its own error. Takes about three minutes with the defaults. Needs neither
    Kafka nor root.
    """
    if png is not None:
        picture.available()
    with report.workplace(as_json) as (directory, console):
        found = measure(directory, console, rtts, modes, rounds=rounds, handshakes=handshakes)
    if png is not None:
        picture.draw(png, found["rows"], found["ratios"])
    if as_json:
        report.emit("handshakes", **found)
        return
    report.show(console, f"handshakes, {rounds} rounds of {handshakes}, ms [95 %]", COLUMNS, found["rows"])
    report.show(console, "CPU per link, ms [95 %]", CPU_COLUMNS, found["rows"])
    report.show(console, "ratios [95 %]", RATIO_COLUMNS, found["ratios"])
    notes = [
        "the modes authenticate both ends, without an intermediate: pq-auth with ML-DSA-65, kemtls (experimental) with "
        "ML-KEM-768 below ML-DSA-65; the ciphertext to a side's key counts with the keys and signatures of that side"
    ]
    report.show(console, "bytes of a handshake on the wire", WIRE_COLUMNS, found["wire"], notes, upright=True)
    notes = ["key exchange + authentication of the server alone, with an intermediate, made with our own TLS 1.3"]
    notes += [f"{row['handshake']}: {row['remark']}" for row in found["published"] if row["remark"]]
    report.show(console, "published sizes, measured again", PUBLISHED_COLUMNS, found["published"], notes)
    report.show(console, "the delaying proxy's error, from echoes", LATE_COLUMNS, found["proxy"])


def _span(values: Mapping[str, float], form: str = ".2f") -> str:
    return bootstrap.Estimate(**values).text(form)


COLUMNS: Sequence[report.Column] = (
    ("RTT, ms", lambda r: f"{r['rtt_ms']:g}"),
    ("mode", lambda r: r["mode"]),
    ("median", lambda r: _span(r["handshake_p50_ms"])),
    ("p95", lambda r: _span(r["handshake_p95_ms"], ".1f")),
    ("p99", lambda r: _span(r["handshake_p99_ms"], ".1f")),
    ("first answer", lambda r: f"{r['answer_p50_ms']['value']:.2f}"),
)
CPU_COLUMNS: Sequence[report.Column] = (
    ("RTT, ms", lambda r: f"{r['rtt_ms']:g}"),
    ("mode", lambda r: r["mode"]),
    ("client CPU", lambda r: _span(r["client_cpu_ms"])),
    ("server CPU", lambda r: _span(r["server_cpu_ms"])),
)
RATIO_COLUMNS: Sequence[report.Column] = (
    ("RTT, ms", lambda r: f"{r['rtt_ms']:g}"),
    ("pair", lambda r: r["pair"]),
    ("handshake", lambda r: _span(r["handshake"], ".3f")),
    ("verdict at 99 %", lambda r: r["verdict"]),
    ("first answer", lambda r: _span(r["answer"], ".3f")),
    ("CPU of both", lambda r: _span(r["cpu"], ".3f")),
)
PUBLISHED_COLUMNS: Sequence[report.Column] = (
    ("handshake", lambda r: r["handshake"]),
    ("published, bytes", lambda r: f"{r['bytes']} = {' + '.join(map(str, r['parts']))}"),
    ("measured", lambda r: str(r["measured"])),
)
WIRE_COLUMNS: Sequence[report.Column] = (
    ("mode", lambda r: r["mode"]),
    ("flights, round trips", lambda r: f"{r['flights']}, {r['round_trips']}"),
    ("to server / to client", lambda r: f"{r['to_server']} / {r['to_client']}"),
    ("key exchange", lambda r: str(r["key_exchange"])),
    (
        "keys + signatures: server / client",
        lambda r: f"{r['server_authentication']} / {r['client_authentication']}",
    ),
    ("key exchange + server, as published", lambda r: str(r["key_exchange"] + r["server_authentication"])),
    ("whole messages with these keys and signatures", lambda r: str(r["authentication_messages"])),
)
LATE_COLUMNS: Sequence[report.Column] = (
    ("RTT, ms", lambda r: f"{r['rtt_ms']:g}"),
    ("late p50, ms", lambda r: f"{r['late_p50_ms']:+.3f}"),
    ("late p95, ms", lambda r: f"{r['late_p95_ms']:+.3f}"),
)
