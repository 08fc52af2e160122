"""`logbench`: run, measure and compare the pipeline."""

from __future__ import annotations

import click

from streams import program

ELSEWHERE = {
    "backlog": "bench.speed.backlog",
    "chaos": "bench.chaos.command",
    "compare": "bench.compare.command",
    "cost": "bench.speed.cost",
    "demo": "bench.demo",
    "files": "bench.speed.files",
    "fire": "bench.chaos.fire",
    "generate": "bench.lab.generate",
    "handshakes": "bench.handshakes.command",
    "hostile": "bench.chaos.hostile",
    "idle": "bench.speed.idle",
    "kafka": "bench.broker",
    "keys": "bench.speed.keys",
    "latency": "bench.speed.latency",
    "links": "bench.speed.links",
    "peers": "bench.speed.peers",
    "primitives": "bench.handshakes.primitives",
    "ramp": "bench.speed.sustained",
    "records": "bench.broker",
    "restart": "bench.speed.restart",
    "stacks": "bench.handshakes.stacks",
    "start": "bench.speed.start",
    "stuck": "bench.chaos.stuck",
    "sources": "bench.speed.sources",
    "sustained": "bench.speed.sustained",
    "throughput": "bench.speed.throughput",
    "waiting": "bench.speed.waiting",
    "watch": "bench.watch",
}


@click.group(cls=program.Commands, elsewhere=ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logfwd")
def main() -> None:
    """Run, measure and compare the pipeline on this machine, with real processes and a real Kafka.

    Each command starts the forwarder, the receiver and, with `--sink kafka`, a broker of its own, and stops them again;
    only `watch`, `records` and `compare --admin` look at programs that already run. Kafka needs the dependency group
    `kafka` (`make setup` installs it) and downloads its jars once (45 MB, to ~/.m2).

    MB are 10⁶ bytes. Exit codes: 0 done; 1 not done, or the command's check failed; 2 bad usage.
    """
