"""`logfwd`: the forwarder's command line."""

from __future__ import annotations

import json
from pathlib import Path

import click

from logfwd import openfiles
from logfwd.commands.options import CONFIG
from logfwd.config import ForwarderConfig, files_of, ignored_in, load_forwarder
from streams import descriptors, program
from streams.errors import ConfigError, SpoolError
from streams.signals import Stop
from streams.telemetry import logs

ELSEWHERE = {
    "bundle": "logfwd.commands.bundle",
    "completion": "logfwd.commands.completion",
    "init": "logfwd.commands.init",
    "positions": "logfwd.commands.positions",
    "pki": "logfwd.commands.pki",
    "reload": "logfwd.commands.reload",
    "spool": "logfwd.commands.spool",
    "tls": "logfwd.commands.tls",
    "status": "logfwd.commands.status",
    "streams": "logfwd.commands.streams",
    "tap": "logfwd.commands.tap",
}


@click.group(cls=program.Commands, elsewhere=ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="logfwd")
def main() -> None:
    """Batch structured logs into streams and push them over hybrid post-quantum TLS to a receiver.

    Start with `logfwd pki init`, write logfwd.toml and streams.d/NAME.toml, check them with `logfwd validate`, then
    `logfwd run`.
    """


@main.command()
@CONFIG
@program.LOG_LEVEL
@program.LOG_FORMAT
def run(path: Path, log_level: str, log_format: str | None) -> None:
    """Read, spool and send the configured streams until SIGTERM.

    SIGTERM stops reading, sends the spooled batches for up to stop_grace, and leaves the rest in the spool. A second
    SIGTERM ends the process at once; the next start continues from the spool. SIGHUP reloads the configuration, and so
    does a change of its files with watch = true: an invalid one is rejected and the last good one stays. Logs go to
    standard error, one JSON object per line unless it is a terminal; NO_COLOR turns colours off.

    Exit codes: 0 after SIGTERM, or when every source has ended (stdin); 1 after a second SIGTERM, or if something hangs
    for longer than stop_grace and 3 s; 69 if a resource is not available, such as the admin address; 70 after a fault
    of the program itself; 78 for an invalid configuration, one that needs more open files than the process may have, or
    a state_dir that cannot be used or is in use.
    """
    from logfwd.sources.file.writers import ignore_lease_breaks
    from streams.config.exposed import tell_of_secrets

    logs.configure(level=log_level, form=log_format)
    ignore_lease_breaks()
    try:
        config = load_forwarder(path)
        openfiles.check(config, path, descriptors.raise_limit())
    except ConfigError as error:
        program.refuse_config(error)

    tell_of_secrets(config)
    program.serve(lambda stop: _forward(path, config, stop))


async def _forward(path: Path, config: ForwarderConfig, stop: Stop) -> None:
    import asyncio

    from logfwd.acts import acts_of, flows_of
    from logfwd.forwarder import Forwarder
    from streams import control
    from streams.security import stacks
    from streams.watching import watching

    stacks.self_test(stacks.named(sorted(config.modes), config.tls))
    forwarder = Forwarder(config)
    stop.grace_seconds = lambda: forwarder.config.stop_grace_seconds

    def files() -> list[Path]:
        return files_of(path, forwarder.config) if forwarder.config.watch else []

    async with (
        forwarder,
        control.serving(control.in_directory(config.state_dir), acts_of(forwarder, path), flows_of(forwarder)),
        watching(files, stop.reload),
    ):
        program.has_started()
        stop.on_reload = lambda: forwarder.reload(lambda: load_forwarder(path))
        ends = [asyncio.create_task(stop.requested.wait()), asyncio.create_task(forwarder.finished.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()


@main.command()
@CONFIG
@click.option(
    "--connect",
    is_flag=True,
    help="Also ask each receiver, at each of its addresses, whether it would welcome each stream.",
)
def validate(path: Path, connect: bool) -> None:
    """Check logfwd.toml, every stream file and the TLS files.

    Prints all problems, each with its file and key; or one line per stream.

    With --connect it greets each receiver of each stream, at each of its addresses, up to the receiver's welcome: TLS,
    certificates, [[allow]], the mode and the topic are as they will be for `logfwd run`. It prints what was negotiated
    and the topic, or who refused and why. A forwarder that runs is not disturbed, and nothing is sent or created.

    Exit codes: 0 if all is well; 69 if a receiver cannot be reached or refuses a stream; 78 for an invalid
    configuration.
    """
    from logfwd import state_dir
    from logfwd.sources.file.preview import read_twice, unread
    from logfwd.sources.listeners import check as check_listeners
    from streams.config.exposed import exposed
    from streams.security import stacks

    try:
        config = load_forwarder(path)
        stacks.check(config.tls, stacks.named(sorted(config.modes), config.tls), accepting=False)
        check_listeners([stream.source for stream in config.streams])
    except ConfigError as error:
        program.refuse_config(error)
    for each in exposed(config):
        program.say(each, err=True)
    for stream in config.streams:
        kind = f"twin of {stream.mirror_of}" if stream.mirror_of else "stream"
        (mode,) = stacks.named([stream.security], config.tls)
        program.say(f"{stream.name}: {kind}, mode {mode.label}, to {', '.join(stream.receivers or config.receivers)}")
        for sentence in unread(stream.source):
            program.say(f"{stream.name}: {sentence}", err=True)
    for sentence in read_twice({stream.name: stream.source for stream in config.streams}):
        program.say(sentence, err=True)
    if reason := state_dir.unusable(config.state_dir):
        program.say(f"state_dir {config.state_dir} could not be used: {reason}", err=True)
    if ignored := ignored_in(config.streams_dir):
        program.say(f"{config.streams_dir} has files that are no streams, as only NAME.toml is: {ignored}", err=True)
    from logfwd.spool.remains import of_removed_streams

    try:
        for part in of_removed_streams(config.state_dir, {stream.name for stream in config.streams}):
            program.say(f"{part.file} holds a removed stream, see logfwd spool rm: {part}", err=True)
    except (SpoolError, OSError) as error:
        program.say(f"remains of removed streams cannot be listed: {error}", err=True)
    if connect:
        from logfwd.commands.probe import probe

        program.run(lambda: probe(config))


@main.command(short_help="Print the JSON Schema of a file, or of records.")
@click.argument("kind", type=click.Choice(["logfwd", "stream", "record"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of logfwd.toml, a stream file, or records.

    Editors use the first two to complete and check these files. The third is for consumers: it describes the fields
    that records have whose lines were not JSON objects.
    """
    if kind == "record":
        from logfwd.sources.formats.schema import RECORD

        click.echo(json.dumps(RECORD, indent=2))
        return
    from logfwd.config import json_schema

    click.echo(json.dumps(json_schema(kind), indent=2))
