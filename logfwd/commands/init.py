"""`logfwd init`: a first configuration for this host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logfwd.config import load_forwarder
from streams import first, program
from streams.config import edited

CONFIG = """\
# Every key is described in docs/configuration.md; relative paths start in the directory of this file.
state_dir = {state_dir}            # spools, and the socket for logfwd status, reload, streams
receivers = {receivers}

[tls]
certificate = {certificate}
key = {key}
ca = {ca}

[admin]                        # metrics, health, the live page; on this host only
address = {admin}
"""
STREAM = """\
name = {name}
security = {mode}

[source]
type = "file"
paths = {files}
format = {form}

[add]                          # added at the start of every record
host = "${{HOSTNAME}}"
"""


@click.command(
    epilog="""\b
Examples:
  logfwd init --file '/var/log/nginx/*.json'
  logfwd init --file /var/log/syslog --format text --receiver logs.example.net:7443"""
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option(
    "--file", "files", metavar="PATTERN", multiple=True, help="Files that the first stream reads. Repeatable."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "text", "cri", "docker", "raw"]),
    default="json",
    show_default=True,
    help="What their lines are.",
)
@click.option("--stream", default="app", show_default=True, help="Name of the first stream.")
@click.option("--mode", default="hybrid", show_default=True, help="Its security mode.")
@click.option("--receiver", "receivers", metavar="HOST:PORT", multiple=True, help="Where to send. Repeatable.")
@click.option("--state-dir", default="state", show_default=True, help="Directory for spools.")
@click.option("--admin", default="127.0.0.1:9464", show_default=True, help="Address for metrics and the live page.")
@click.option(
    "--pki",
    type=click.Path(path_type=Path),
    help="Directory with ca.pem and this host's certificate, or an authority that issues it. Default: DIRECTORY/pki.",
)
@click.option("--name", default="", help="Name of the certificate's files; without it, this host's name.")
@click.option("--identity", default="", help=f"Identity in a certificate that is issued. Default: {first.SITE}/NAME.")
def init(
    directory: Path,
    files: tuple[str, ...],
    form: str,
    stream: str,
    mode: str,
    receivers: tuple[str, ...],
    state_dir: str,
    admin: str,
    pki: Path | None,
    name: str,
    identity: str,
) -> None:
    """Write a first configuration for this host.

    Writes logfwd.toml and streams.d/NAME.toml in DIRECTORY, and checks them. This host's certificate is taken from
    --pki, or issued by the authority there. On a terminal it asks for what is missing. Nothing needs root.

    Exit codes: 0; 1 if a file exists or there is no certificate; 2 for a wrong option; 78 if what would be written is
    not valid. Unless it is 0, nothing is left behind.
    """
    files = files or (_asked("--file", "Which files shall be read"),)
    receivers = receivers or (_asked("--receiver", "Receiver", default="localhost:7443"),)
    name, pki = name or first.host_name(), pki or directory / "pki"
    where = first.as_written(pki, directory)
    with first.writing(directory, "logfwd.toml") as written:
        written.leaf(pki, name, identity=identity or f"{first.SITE}/{name}")
        paths = {"certificate": f"{name}.pem", "key": f"{name}.key", "ca": "ca.pem"}
        values = {"state_dir": state_dir, "receivers": list(receivers), "admin": admin}
        values |= {key: str(where / file) for key, file in paths.items()}
        written.write("logfwd.toml", CONFIG.format(**{key: edited.shown(each) for key, each in values.items()}))
        absolute = [str(Path(each).absolute()) for each in files]
        keys = {"name": stream, "mode": mode, "files": absolute, "form": form}
        written.write(
            f"streams.d/{stream}.toml", STREAM.format(**{key: edited.shown(each) for key, each in keys.items()})
        )
        _check(directory / "logfwd.toml")
    program.say(f"next: cd {directory.absolute()} && logfwd run")


def _check(path: Path) -> None:
    from streams.security import stacks

    config = load_forwarder(path)
    stacks.check(config.tls, stacks.named(sorted(config.modes), config.tls), accepting=False)


def _asked(option: str, question: str, default: str | None = None) -> str:
    """What somebody at the terminal answers; without a terminal the default, or UsageError."""
    if sys.stdin.isatty() and sys.stderr.isatty():
        answer: str = click.prompt(question, default=default, err=True)
        return answer
    if default is None:
        raise click.UsageError(f"{option} is missing")
    return default
