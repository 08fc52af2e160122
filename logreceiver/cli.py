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
    help="The receiver's configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logfwd")
def main() -> None:
    """Receive log streams over mutual TLS and write them to Kafka or to an embedded log.

    Write logreceiver.toml, check it with `logreceiver validate`, then start `logreceiver run`. Results are printed to
    stdout, logs to stderr. Exit code 78 means a faulty configuration, 69 that something needed is unavailable.
    """


def _load(path: Path) -> ReceiverConfig:
    try:
        return load_receiver(path)
    except ConfigError as error:
        program.refuse_config(error)


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
    """
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
        raise click.UsageError("the embedded log belongs to a single process; use --workers with the Kafka sink only")
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
    """Problems in the files that the configuration names, as a start would find them."""
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
    """Print the JSON Schema of logreceiver.toml.

    Editors use it to complete and check the file.
    """
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
    help="Directory of the embedded log; without it, the configured one.",
)


@main.command()
@click.argument("topic")
@CONFIG
@DIRECTORY
@click.option("--partition", type=int, help="Print this partition only; without it, all of them.")
@click.option("--from-offset", type=int, default=0, show_default=True, help="First offset to print, in each partition.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing records as they arrive, until interrupted.")
def cat(topic: str, path: Path, directory: Path | None, partition: int | None, from_offset: int, follow: bool) -> None:
    """Print the records of TOPIC in the embedded log, one per line.

    Partitions are printed one after the other. A receiver may be writing to the log at the same time: only
    acknowledged records are printed. Damaged batches are skipped.
    """
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
@click.option(
    "--to",
    "target",
    required=True,
    help="kafka://HOST:PORT[,HOST:PORT…][/TOPIC]: brokers (plaintext, without SASL) and target topic, default TOPIC.",
)
@CONFIG
@DIRECTORY
def replay(topic: str, target: str, path: Path, directory: Path | None) -> None:
    """Copy TOPIC from the embedded log to Kafka, each record once.

    The batches get producer ids of that cluster. Copies everything acknowledged so far; a second replay copies it
    again. The target topic is created if it does not exist. If a batch cannot be stored within 120 s, the replay stops,
    prints the offset where it stopped, and exits with 69.
    """
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
@click.option(
    "--identity",
    default="*",
    show_default=True,
    help="Report only forwarders whose identity matches this shell pattern.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def ledger(stream: str, path: Path, directory: Path | None, identity: str, as_json: bool) -> None:
    """Count STREAM's records sent, stored, missing and stored twice.

    Covers its twins too, and shows the share of each TLS group. Reads the ledger from the configured sink, or from the
    embedded log in --directory, and asks the sink where the ledger alone leaves records unaccounted for. Numbers are
    records; notes explain what is unknown.

    Exits with 1 if anything is missing or stored twice, and with 69 if there is no ledger or it does not mention
    STREAM.
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
        click.echo(f"no ledger found: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    if not answers:
        click.echo(f"the ledger has no entry for stream {stream!r} from {identity}", err=True)
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
    help="Admin address to query instead of the configured admin.address; repeat for each worker: results are merged.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def posture(path: Path, addresses: tuple[str, ...], as_json: bool) -> None:
    """Report how the links of a running receiver are protected.

    Prints, for each stream and identity, the share of links and of bytes by TLS group, TLS version and certificate
    algorithm since the receiver started, and the age of the oldest open link (h:mm:ss). Then the forwarders'
    certificates, soonest to expire first. Exits with 69 if no receiver answers.
    """
    from logreceiver import posture_commands

    if not addresses:
        admin = _load(path).admin
        if admin is None:
            raise click.UsageError(
                "the configuration turns admin off, so there is no address to query; name one with --admin"
            )
        host, port = split_address(admin.address)
        addresses = (join_address(host or "127.0.0.1", port),)
    try:
        report = posture_commands.ask(addresses)
    except posture_commands.NotAnswered as error:
        click.echo(f"no receiver answers: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    posture_commands.show(report, as_json=as_json)
