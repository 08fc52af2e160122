"""`logreceiver`: the receiver's command line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from logreceiver.config import LogSink, ReceiverConfig, load_receiver
from streams import program
from streams.addresses import join_address, split_address
from streams.errors import ConfigError, Problem
from streams.telemetry import logs

CONFIG = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("logreceiver.toml"),
    show_default=True,
    help="The receiver's configuration.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logfwd")
def main() -> None:
    """Take streams of log batches over mutual TLS and write them to Kafka, or to an embedded log."""


def _load(path: Path) -> ReceiverConfig:
    try:
        return load_receiver(path)
    except ConfigError as error:
        program.refuse_config(error)


@main.command()
@CONFIG
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the listeners' ports; worker K serves metrics K ports above admin.address.",
)
def run(path: Path, log_level: str, workers: int) -> None:
    """Run the receiver until SIGTERM. SIGHUP reloads its certificate."""
    logs.configure(level=log_level)
    config = _load(path)
    worker = _become_worker(config, workers) if workers > 1 else None

    async def receive(stop: program.Stop) -> None:
        from logreceiver.service import Service
        from streams.security import modes, openssl

        openssl.self_test(modes.MODES[name] for name in sorted(config.modes))
        async with Service(config, worker=worker) as service:
            stop.on_reload = service.reload
            await stop.requested.wait()

    program.run(receive)


def _become_worker(config: ReceiverConfig, count: int) -> int:
    from logreceiver.workers import become_worker

    if isinstance(config.sink, LogSink):
        raise click.UsageError("the embedded log belongs to one process: --workers is for Kafka")
    addresses = [listener.address for listener in config.listener] + ([config.admin.address] if config.admin else [])
    if any(split_address(address)[1] == 0 for address in addresses):
        raise click.UsageError("workers share ports: name them, port 0 gives each another one")
    return become_worker(count)


@main.command()
@CONFIG
def validate(path: Path) -> None:
    """Check a configuration and print all its errors (exit 78), or what it would do."""
    config = _load(path)
    if problems := list(_problems_of_files(config)):
        program.refuse_config(ConfigError(problems))
    for listener in config.listener:
        click.echo(f"listener {listener.address}: {', '.join(listener.modes)}")
    for rule in config.allow:
        click.echo(
            f"{rule.identity} may write {', '.join(rule.streams)} in mode {', '.join(rule.modes)} to {rule.topic}"
        )
    where = config.sink.directory if isinstance(config.sink, LogSink) else ", ".join(config.sink.brokers)
    click.echo(f"sink: {'log' if isinstance(config.sink, LogSink) else 'kafka'} at {where}")


def _problems_of_files(config: ReceiverConfig) -> Iterator[Problem]:
    """What a start would find wrong in the files that the configuration names."""
    from logreceiver.grants import Grants
    from streams.security import openssl

    checks: list[Callable[[], object]] = [lambda: Grants.load(config.grant_key_file)]
    for tls in (config.tls, None if isinstance(config.sink, LogSink) else config.sink.tls):
        if tls is not None:
            files = openssl.Credentials(tls.certificate, tls.key, tls.ca)
            checks.append(functools.partial(openssl.check_files, files))
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield from error.problems


@main.command()
def schema() -> None:
    """Print the JSON Schema of logreceiver.toml."""
    from logreceiver.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _log_directory(path: Path, directory: Path | None) -> Path:
    if directory is not None:
        return directory
    sink = _load(path).sink
    if not isinstance(sink, LogSink):
        raise click.UsageError(
            "the configured sink is Kafka; read its topics with Kafka's own tools, or use --directory"
        )
    return sink.directory


DIRECTORY = click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The embedded log's directory, instead of the one in the configuration.",
)


@main.command()
@click.argument("topic")
@CONFIG
@DIRECTORY
@click.option("--partition", type=int, help="Only this partition.")
@click.option("--from-offset", type=int, default=0, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on as records come, until interrupted.")
def cat(topic: str, path: Path, directory: Path | None, partition: int | None, from_offset: int, follow: bool) -> None:
    """Print the records of a topic of the embedded log, one a line."""
    from logreceiver.sinks.log import read_records

    out = sys.stdout.buffer
    try:
        records = read_records(
            _log_directory(path, directory), topic, partition=partition, from_offset=from_offset, follow=follow
        )
        for record in records:
            out.write(bytes(record.value or b"") + b"\n")
            if follow:
                out.flush()
        out.flush()
    except FileNotFoundError as error:
        raise click.ClickException(f"no topic {topic!r} here: {error}") from error
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()


@main.command()
@click.argument("topic")
@click.option("--to", "target", required=True, help="kafka://HOST:PORT[,HOST:PORT…][/TOPIC]")
@CONFIG
@DIRECTORY
def replay(topic: str, target: str, path: Path, directory: Path | None) -> None:
    """Copy a topic of the embedded log to Kafka, each record once, under producer ids of that cluster."""
    from logreceiver.replay import replay_to_url

    logs.configure(level="warning")
    log_directory = _log_directory(path, directory)

    async def copy(_: program.Stop) -> None:
        result = await replay_to_url(log_directory, topic, target)
        click.echo(f"{result.records} records in {result.batches} batches replayed to {result.topic}")

    program.run(copy)


@main.command()
@click.argument("stream")
@CONFIG
@DIRECTORY
@click.option("--identity", default="*", show_default=True, help="Only forwarders whose identity fits this pattern.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ledger(stream: str, path: Path, directory: Path | None, identity: str, as_json: bool) -> None:
    """Say what was sent, stored, missing and twice of a stream and its twins, and under which TLS group.

    Exits with 1 if anything is missing or stored twice.
    """
    from logreceiver import ledger_commands
    from logreceiver.config import KafkaSink, Ledger
    from logreceiver.ledger_answer import Answer, is_wrong

    logs.configure(level="warning")
    config = None if directory is not None else _load(path)
    topic = (config.ledger if config is not None and config.ledger is not None else Ledger()).topic
    answers: list[Answer] = []

    async def read(_: program.Stop) -> None:
        if config is not None and isinstance(config.sink, KafkaSink):
            answers.extend(await ledger_commands.answers_of_kafka(config.sink, topic, stream, identity))
        else:
            where = _log_directory(path, directory)
            answers.extend(ledger_commands.answers_of_log(where, topic, stream, identity))

    try:
        program.run(read)
    except FileNotFoundError as error:
        click.echo(f"no ledger here: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    if not answers:
        click.echo(f"the ledger knows nothing of stream {stream!r} from {identity}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    ledger_commands.show(answers, as_json_lines=as_json)
    if is_wrong(answers):
        sys.exit(1)


@main.command()
@CONFIG
@click.option(
    "--admin",
    "addresses",
    multiple=True,
    metavar="URL",
    help="Ask here instead of at the configured admin.address; give it for each worker, and they are added up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def posture(path: Path, addresses: tuple[str, ...], as_json: bool) -> None:
    """Say under which group, TLS version and certificate algorithm the links of a running receiver run.

    For each stream and identity: the shares of links and bytes since the receiver's start, and the oldest open link;
    then the forwarders' certificates, soonest to expire first.
    """
    from logreceiver import posture_commands

    if not addresses:
        admin = _load(path).admin
        if admin is None:
            raise click.UsageError("the configuration turns the admin address off; there is nothing to ask")
        host, port = split_address(admin.address)
        addresses = (join_address(host or "127.0.0.1", port),)
    try:
        report = posture_commands.ask(addresses)
    except posture_commands.NotAnswered as error:
        click.echo(f"no receiver answers: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    posture_commands.show(report, as_json=as_json)
