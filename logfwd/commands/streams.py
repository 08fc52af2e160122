"""`logfwd streams`: the streams of a configuration, and how one is added or removed while the forwarder runs."""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from logfwd.commands import reload
from logfwd.commands.options import CONFIG
from logfwd.config import NONE, Drafts, ForwarderConfig, load_forwarder, streams_dir_of
from logfwd.definition import Stream, check_name
from logfwd.sources.settings import FileSource
from streams import asking, control, program
from streams.columns import aligned
from streams.config import edited, toml
from streams.errors import ConfigError
from streams.files import create_file
from streams.telemetry.client import NotAnswered

LINK_SECONDS = 5.0
"""How long a stream that was added is given to make its link, to say how that went."""
LOOK_SECONDS = 0.2


@click.group()
def streams() -> None:
    """List, show, add and remove the streams of a forwarder.

    Each is a file in streams_dir. `add` and `remove` check the whole configuration with their change before they write
    anything, have the running forwarder take it, and put everything back if it does not.
    """


@streams.command("list")
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_streams(path: Path, as_json: bool) -> None:
    """List the streams that the configuration defines.

    Prints a line for each: name, mode, what it reads, and the receivers that it is sent to; a stream whose file says
    `removed = true` is listed as removed. `logfwd status` says how they do.

    Exit codes: 0; 78 for an invalid configuration.
    """
    config = _load(path, NONE)
    if as_json:
        rows = [_row(config, stream) | {"removed": False} for stream in config.streams]
        asking.print_json([*rows, *({"stream": name, "removed": True} for name in config.removed)])
        return
    cells = [("STREAM", "MODE", "READS", "RECEIVERS")]
    for stream in config.streams:
        row = _row(config, stream)
        cells.append((row["stream"], row["mode"], row["reads"], ", ".join(row["receivers"])))
    cells += [(name, "removed", "-", "-") for name in config.removed]
    for line in aligned(cells, numbers_from=len(cells[0])):
        program.say(line)


@streams.command()
@CONFIG
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print its keys as JSON.")
def show(path: Path, name: str, as_json: bool) -> None:
    """Print the file of stream NAME.

    As it is: variables are not replaced, and keys that it leaves out have the defaults of docs/configuration.md.

    Exit codes: 0; 1 if there is no such stream; 78 for a file that cannot be read.
    """
    (file,) = _files(path, (name,))
    text = _text(file)
    if as_json:
        asking.print_json({"file": str(file), **tomllib.loads(text)})
    else:
        for line in (f"# {file}", *text.splitlines()):
            program.say(line)


@streams.command(
    short_help="Add a stream, also while the forwarder runs.",
    epilog="""\b
Examples:
  logfwd streams add app --file '/var/log/app/*.json'
  logfwd streams add pq-stream --mirror-of http --mode hybrid
  logfwd streams add web --set source.type=http --set source.address=127.0.0.1:8080""",
)
@CONFIG
@click.argument("name")
@click.option("--file", "files", metavar="PATTERN", multiple=True, help="Read the files that fit this. Repeatable.")
@click.option("--format", "form", default="", help="What their lines are: json, text, cri, docker or raw.")
@click.option("--mirror-of", metavar="STREAM", default="", help="Send what this stream reads, as its twin.")
@click.option("--mode", default="", help="Security mode; without it, hybrid.")
@click.option("--receiver", "receivers", metavar="HOST:PORT", multiple=True, help="Send it there. Repeatable.")
@click.option("--topic", default="", help="Refuse to send unless the receiver maps the stream to this topic.")
@click.option("--set", "others", metavar="KEY=VALUE", multiple=True, help="Any other key of its file. Repeatable.")
def add(path: Path, name: str, **options: Any) -> None:
    """Add stream NAME: write its file, and have the running forwarder take it.

    The receiver has to allow it ([[allow]] streams), and its topic has to exist there. What was read meanwhile waits in
    the spool.

    Exit codes: 0 if it was added, even if its receiver refuses it so far, which is said; 1 if there is such a stream,
    or the forwarder did not take it; 69 if the forwarder does not answer; 78 if the configuration would be invalid.
    Unless it is 0, nothing is left behind.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    file = streams_dir_of(path) / f"{name}.toml"
    if file.exists() and name not in _load(path, NONE).removed:
        raise click.ClickException(f"{file} exists; change it and run logfwd reload, or take another name")
    text = edited.text_of(_table(name, **options))
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise click.UsageError("what is not UTF-8 cannot be written to a file of TOML")
    _apply(path, {file: text})
    program.say(f"added {name}: {file}")
    _tell_of_link(path, name)


@streams.command(
    short_help="Remove streams, also while the forwarder runs.",
    epilog="""\b
Examples:
  logfwd streams remove app
  logfwd streams remove http pq-stream   a stream and its twin""",
)
@CONFIG
@click.argument("names", nargs=-1, required=True)
def remove(path: Path, names: tuple[str, ...]) -> None:
    """Remove streams NAMES: declare it in their files, and have the running forwarder take that.

    Their files get `removed = true`, and may be deleted afterwards. The sources are not read any more; what waits in
    the spools is sent all the same, also after a restart. A stream comes back where it was when the key is deleted and
    the forwarder reloads.

    Exit codes: 0 if they are removed; 1 if there is no such stream, or the forwarder did not take it; 69 if the
    forwarder does not answer; 78 if the configuration would be invalid. Unless it is 0, nothing is changed.
    """
    files = _files(path, names)
    for stream in _load(path, NONE).streams:
        if stream.mirror_of in names and stream.name not in names:
            raise click.ClickException(
                f"{stream.name} is a twin of {stream.mirror_of} and would go too; name it as well"
            )
    _apply(path, {file: edited.with_key(_text(file), "removed", True) for file in files})
    for name, file in zip(names, files, strict=True):
        program.say(f"removed {name}: {file} says so, and may be deleted")


def _row(config: ForwarderConfig, stream: Stream) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "twin_of": stream.mirror_of,
        "mode": stream.security,
        "reads": _reads(stream),
        "receivers": list(stream.receivers or config.receivers),
        "file": str(config.streams_dir / f"{stream.name}.toml"),
    }


def _reads(stream: Stream) -> str:
    if stream.source is None:
        return f"twin of {stream.mirror_of}"
    if isinstance(stream.source, FileSource):
        return ", ".join(stream.source.paths)
    return str(stream.source.__struct_config__.tag)


def _table(
    name: str,
    *,
    files: tuple[str, ...],
    form: str,
    mirror_of: str,
    mode: str,
    receivers: tuple[str, ...],
    topic: str,
    others: tuple[str, ...],
) -> dict[str, Any]:
    """The keys of a new stream's file."""
    given = {"mirror_of": mirror_of, "security": mode, "receivers": list(receivers), "topic": topic}
    table: dict[str, Any] = {"name": name, **{key: value for key, value in given.items() if value}}
    if files:
        table["source"] = {"type": "file", "paths": [str(Path(each).absolute()) for each in files]}
    if form:
        table.setdefault("source", NONE)["format"] = form
    for other in others:
        key, equals, text = other.partition("=")
        if not equals:
            raise click.UsageError(f"--set {other}: write KEY=VALUE, such as batch.linger=50ms")
        *tables, last = key.split(".")
        inner = table
        for each in tables:
            inner = inner.setdefault(each, NONE)
            if not isinstance(inner, dict):
                raise click.UsageError(f"--set {other}: {each} is not a table")
        inner[last] = edited.value_of(text)
    if not {"source", "mirror_of"} & table.keys():
        raise click.UsageError("say what it reads: --file PATTERN, --mirror-of STREAM, or --set source.type=…")
    return table


def _files(path: Path, names: tuple[str, ...]) -> list[Path]:
    directory = streams_dir_of(path)
    for name in names:
        if not (directory / f"{name}.toml").is_file():
            known = ", ".join(sorted(file.stem for file in directory.glob("*.toml"))) or "none"
            raise click.ClickException(f"there is no stream {name!r} in {directory}; existing streams: {known}")
    return [directory / f"{name}.toml" for name in names]


def _text(file: Path) -> str:
    try:
        toml.parse(file)  # which refuses what is no text
        return file.read_text("utf-8-sig")
    except ConfigError as error:
        program.refuse_config(error)


def _load(path: Path, drafts: Drafts) -> ForwarderConfig:
    """The configuration with these drafts; if it is faulty, print every problem and exit with 78."""
    from logfwd.sources.listeners import check as check_listeners
    from streams.security import stacks

    try:
        config = load_forwarder(path, drafts)
        stacks.check(config.tls, stacks.named(sorted(config.modes), config.tls), accepting=False)
        check_listeners([stream.source for stream in config.streams])
    except ConfigError as error:
        program.refuse_config(error)
    return config


def _apply(path: Path, drafts: Drafts) -> None:
    """Check, write, and have the running forwarder take it; ends, with everything as it was, if that is refused."""
    socket = control.in_directory(_load(path, drafts).state_dir)
    try:
        runs = control.is_served(socket)
    except NotAnswered as error:
        program.end_unavailable(error)
    with _undone_on_failure(drafts):
        for file, text in drafts.items():
            _write(file, text.encode(), like=file if file.exists() else path)
        if runs:
            asking.reload(socket, reload.show, as_json=False, seconds=reload.ANSWER_SECONDS, check=False, confirm="")
    if not runs:
        program.say("no forwarder is running: this takes effect when it starts")


@contextlib.contextmanager
def _undone_on_failure(drafts: Drafts) -> Iterator[None]:
    before = {file: file.read_bytes() if file.exists() else None for file in drafts}
    try:
        yield
    except BaseException:
        for file, data in before.items():
            if data is None:
                file.unlink(missing_ok=True)
            else:
                _write(file, data, like=file)
        raise


def _write(file: Path, data: bytes, *, like: Path) -> None:
    """Whole or not at all; whoever may read the file `like` may read this one."""
    try:
        create_file(file, data, mode=0o600, replace=True, like=like)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error


def _tell_of_link(path: Path, name: str) -> None:
    """Wait a moment for its link, and say whether it is there, or why not."""
    socket = control.in_directory(_load(path, NONE).state_dir)
    deadline = time.monotonic() + LINK_SECONDS
    said = "it has no link yet; see logfwd status"
    with contextlib.suppress(NotAnswered):
        while time.monotonic() < deadline:
            rows = control.ask(socket, "status", seconds=LINK_SECONDS)["streams"]
            row = next((row for row in rows if row["stream"] == name), None)
            if row is not None and row["state"] == "connected":
                program.say(f"{name} is linked to {row['link']['receiver']}, {row['link']['group']}")
                return
            if row is not None and row["last_failure"] is not None:
                said = row["last_failure"]["detail"]
                break
            time.sleep(LOOK_SECONDS)
        program.say(f"{name} has no link, and keeps what it reads: {said}", err=True)
