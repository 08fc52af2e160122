"""`logreceiver`: the receiver's command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logreceiver.commands.options import CONFIG, load
from logreceiver.config import ReceiverConfig, load_receiver
from streams import program
from streams.addresses import split_address
from streams.errors import ConfigError, PipelineError
from streams.signals import Stop
from streams.telemetry import logs

if TYPE_CHECKING:
    from logreceiver.service import Service
    from logreceiver.workers import Worker

ELSEWHERE = {
    "bundle": "logreceiver.commands.bundle",
    "completion": "logreceiver.commands.completion",
    "init": "logreceiver.commands.init",
    "cat": "logreceiver.commands.log",
    "ledger": "logreceiver.commands.ledger",
    "links": "logreceiver.commands.links",
    "posture": "logreceiver.commands.posture",
    "reload": "logreceiver.commands.reload",
    "replay": "logreceiver.commands.log",
    "status": "logreceiver.commands.status",
}


@click.group(cls=program.Commands, elsewhere=ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="logfwd")
def main() -> None:
    """Receive log streams over mutual TLS and write them to Kafka or to an embedded log.

    Write logreceiver.toml, check it with `logreceiver validate`, then start `logreceiver run`. Results are printed to
    stdout, logs to stderr. Exit code 78 means a faulty configuration, 69 that something needed is unavailable.
    """


@main.command()
@CONFIG
@program.LOG_LEVEL
@program.LOG_FORMAT
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Number of processes that share the listeners' ports; for the Kafka sink. "
    "Worker K (from 0) serves its metrics K ports above admin.address.",
)
def run(path: Path, log_level: str, log_format: str | None, workers: int) -> None:
    """Run the receiver until SIGTERM.

    SIGTERM lets batches under way finish for up to stop_grace; a second SIGTERM stops at once. SIGHUP reloads the
    configuration and the files that it names: an invalid one is rejected and the last good one stays. Certificates are
    also reloaded when their files change, and so is the configuration with watch = true.

    Exit codes: 0 after SIGTERM; 1 after a second SIGTERM, or if something hangs for longer than stop_grace and 3 s; 69
    if a resource is not available, such as an address; 70 after a fault of the program itself; 78 for an invalid
    configuration.
    """
    from streams.config.exposed import tell_of_secrets

    logs.configure(level=log_level, form=log_format)
    config, worker, taken = load(path), None, None
    tell_of_secrets(config)
    if workers > 1:
        from logreceiver.workers import Taken

        taken = Taken(config)
        worker = _become_worker(config, workers)
        config = taken.get()  # one that is started again has to follow the others

    async def receive(stop: Stop) -> None:
        from logreceiver.checks import modes_of
        from logreceiver.service import Service
        from streams.security import stacks
        from streams.watching import watching

        stop.grace_seconds = lambda: config.stop_grace_seconds
        stacks.self_test(modes_of(config))
        async with Service(config, worker=None if worker is None else worker.number) as service:
            program.has_started()
            stop.grace_seconds = lambda: service.config.stop_grace_seconds
            async with contextlib.AsyncExitStack() as stack:
                if worker is None or taken is None:
                    stop.on_reload = lambda: service.reload(lambda: load_receiver(path))
                    await stack.enter_async_context(_controlled(service, path))
                else:
                    from logreceiver.following import following

                    stop.on_reload = await stack.enter_async_context(
                        following(worker.parent, service, lambda: load_receiver(path), taken.put)
                    )
                if worker is None or worker.number == 0:
                    files = watching(lambda: (path, *service.config.files) if service.config.watch else (), stop.reload)
                    await stack.enter_async_context(files)
                await stop.requested.wait()

    program.serve(receive, peers_wait=True)


@contextlib.asynccontextmanager
async def _controlled(service: Service, path: Path) -> AsyncIterator[None]:
    """Take an operator's acts, if there is a socket for them."""
    from logreceiver.acts import acts_of
    from streams import control

    if service.config.control_socket is None:
        yield
        return
    async with control.serving(service.config.control_socket, acts_of(service, path)):
        yield


def _become_worker(config: ReceiverConfig, count: int) -> Worker:
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
    try:
        return become_worker(count, config.control_socket)
    except PipelineError as error:
        program.say(f"error: {error}", err=True)
        raise SystemExit(program.EX_UNAVAILABLE) from error


@main.command()
@CONFIG
@click.option("--connect", is_flag=True, help="Also look whether the sink can be used: brokers, topics, rights.")
def validate(path: Path, connect: bool) -> None:
    """Check the configuration and the files it names.

    Prints every problem; or what the receiver would serve and where it would write.

    With --connect it also asks each broker, for a producer id, and for each topic that the rules and [ledger] name,
    with the rights that it needs; or looks at the directory of the embedded log. Nothing is created or written.

    Exit codes: 0 if all is well; 69 if something of the sink would have streams refused; 78 for an invalid
    configuration.
    """
    from logreceiver.checks import problems_of_files
    from streams.config.exposed import exposed
    from streams.security import stacks

    config = load(path)
    if problems := list(problems_of_files(config)):
        program.refuse_config(ConfigError(problems))
    for each in exposed(config):
        program.say(each, err=True)
    for listener in config.listener:
        served = stacks.named(listener.modes, config.tls)
        program.say(f"listener {listener.address}: {', '.join(mode.label for mode in served)}")
    for rule in config.allow:
        program.say(
            f"{rule.identity} may write {', '.join(rule.streams)} in mode {', '.join(rule.modes)} to {rule.topic}"
        )
    program.say(f"sink: {config.sink.location}")
    if connect:
        from logreceiver.commands.connect import look

        program.run(lambda: look(config))


@main.command()
def schema() -> None:
    """Print the JSON Schema of logreceiver.toml.

    Editors use it to complete and check the file.
    """
    from logreceiver.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
