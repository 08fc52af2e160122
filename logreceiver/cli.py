"""`logreceiver`: the receiver's command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, load
from logreceiver.config import ReceiverConfig
from streams import program
from streams.addresses import split_address
from streams.errors import ConfigError, Problem
from streams.signals import Stop
from streams.telemetry import logs

ELSEWHERE = {
    "cat": "logreceiver.commands.log",
    "ledger": "logreceiver.commands.ledger",
    "posture": "logreceiver.commands.posture",
    "replay": "logreceiver.commands.log",
}


@click.group(cls=program.Commands, elsewhere=ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logfwd")
def main() -> None:
    """Receive log streams over mutual TLS and write them to Kafka or to an embedded log.

    Write logreceiver.toml, check it with `logreceiver validate`, then start `logreceiver run`. Results are printed to
    stdout, logs to stderr. Exit code 78 means a faulty configuration, 69 that something needed is unavailable.
    """


@main.command()
@CONFIG
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Log events of this level and above.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Number of processes that share the listeners' ports; for the Kafka sink. "
    "Worker K (from 0) serves its metrics K ports above admin.address.",
)
def run(path: Path, log_level: str, workers: int) -> None:
    """Run the receiver until SIGTERM.

    SIGTERM lets batches under way finish for up to stop_grace; a second SIGTERM stops at once. SIGHUP reloads
    the receiver's certificate, which is also reloaded when its files change.

    Exit codes: 0 after SIGTERM; 1 after a second SIGTERM, or if something hangs for longer than stop_grace and 3 s; 69
    if a resource is not available, such as an address; 70 after a fault of the program itself; 78 for an invalid
    configuration.
    """
    logs.configure(level=log_level)
    config = load(path)
    worker = _become_worker(config, workers) if workers > 1 else None

    async def receive(stop: Stop) -> None:
        from logreceiver.service import Service
        from streams.security import modes, stacks

        stop.grace_seconds = lambda: config.stop_grace_seconds
        towards_sink = [modes.MODES[name] for name in sorted(config.sink.modes)]
        stacks.self_test(dict.fromkeys(stacks.named(sorted(config.served_modes), config.tls) + towards_sink))
        async with Service(config, worker=worker) as service:
            program.has_started()
            stop.on_reload = service.reload
            await stop.requested.wait()

    program.serve(receive)


def _become_worker(config: ReceiverConfig, count: int) -> int:
    from logreceiver.workers import become_worker

    if config.sink.one_process:
        raise click.UsageError(
            f"only one process at a time may use the sink ({config.sink.location}); leave out --workers"
        )
    addresses = [listener.address for listener in config.listener] + ([config.admin.address] if config.admin else [])
    if any(split_address(address)[1] == 0 for address in addresses):
        raise click.UsageError(
            "workers share ports, but port 0 gives each worker a different one; set fixed ports for listener and admin"
        )
    return become_worker(count)


@main.command()
@CONFIG
def validate(path: Path) -> None:
    """Check the configuration and the files it names.

    Prints every problem and exits with 78, or prints what the receiver would serve and where it would write.
    """
    from streams.security import stacks

    config = load(path)
    if problems := list(_problems_of_files(config)):
        program.refuse_config(ConfigError(problems))
    for listener in config.listener:
        served = stacks.named(listener.modes, config.tls)
        click.echo(f"listener {listener.address}: {', '.join(mode.label for mode in served)}")
    for rule in config.allow:
        click.echo(
            f"{rule.identity} may write {', '.join(rule.streams)} in mode {', '.join(rule.modes)} to {rule.topic}"
        )
    click.echo(f"sink: {config.sink.location}")


def _problems_of_files(config: ReceiverConfig) -> Iterator[Problem]:
    """Problems in the files that the configuration names, as a start would find them."""
    from logreceiver.links.grants import Grants
    from streams.security import stacks
    from streams.security.modes import MODES

    checks: list[Callable[[], object]] = [lambda: Grants.load(config.grant_key_file)]
    used = stacks.named(sorted(config.served_modes), config.tls)
    checks.append(functools.partial(stacks.check, config.tls, used, accepting=True))
    if config.sink.tls is not None:
        towards_sink = [MODES[name] for name in config.sink.modes]
        checks.append(functools.partial(stacks.check_foreign, config.sink.tls, towards_sink))
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield from error.problems


@main.command()
def schema() -> None:
    """Print the JSON Schema of logreceiver.toml.

    Editors use it to complete and check the file.
    """
    from logreceiver.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
