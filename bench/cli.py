"""`logbench`: run, measure and compare the pipeline."""

from __future__ import annotations

import click

from bench.backlog import backlog
from bench.chaos import chaos
from bench.compare import compare
from bench.cost import cost
from bench.demo import demo
from bench.generate import generate
from bench.handshakes import handshakes
from bench.idle import idle
from bench.latency import latency
from bench.links import links
from bench.peers import peers
from bench.primitives import primitives
from bench.stuck import stuck
from bench.sustained import ramp, sustained
from bench.throughput import throughput
from bench.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logfwd")
def main() -> None:
    """Run, measure and compare the pipeline on this machine, with real processes and a real Kafka.

    Each command starts the forwarder, the receiver and, with `--sink kafka`, a broker of its own, and stops them again;
    only `watch` and `compare --admin` look at programs that already run. Kafka needs the dependency group `kafka`
    (`make setup` installs it) and downloads its jars once (45 MB, to ~/.m2).

    MB are 10⁶ bytes. Exit codes: 0 done; 1 not done, or the command's check failed; 2 bad usage.
    """


for _command in (
    backlog,
    chaos,
    compare,
    cost,
    demo,
    generate,
    handshakes,
    idle,
    latency,
    links,
    peers,
    primitives,
    ramp,
    stuck,
    sustained,
    throughput,
    watch,
):
    main.add_command(_command)
