"""`logreceiver init`: a first configuration for a receiver on this host."""

from __future__ import annotations

from pathlib import Path

import click

from logreceiver.checks import problems_of_files
from logreceiver.config import load_receiver
from streams import first, program
from streams.config import edited
from streams.errors import ConfigError

CONFIG = """\
# Every key is described in docs/configuration.md; relative paths start in the directory of this file.
grant_key_file = {grant_key}   # shared by all receivers of a cluster
control_socket = "control.sock"    # for logreceiver status, links, reload

[tls]
certificate = {certificate}
key = {key}
ca = {ca}

[[listener]]
address = {listen}
modes = {modes}

[[allow]]                          # which identities may write which streams, and to which topic
identity = {identity}
streams = ["*"]
modes = {modes}
topic = "{{stream}}"

[admin]                            # metrics, health, the live page; on this host only
address = {admin}

[sink]
{sink}"""


@click.command(
    epilog="""\b
Examples:
  logreceiver init                                    localhost, embedded log
  logreceiver init --kafka localhost:9092
  logreceiver init --host logs.example.net --listen :7443 --kafka kafka-1:9092 --kafka kafka-2:9092"""
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--kafka", "brokers", metavar="HOST:PORT", multiple=True, help="A broker to write to. Repeatable.")
@click.option("--log-dir", default="log", show_default=True, help="Without --kafka: directory of the embedded log.")
@click.option(
    "--host", "hosts", multiple=True, help="Name in a certificate that is issued. Repeatable. Default: localhost."
)
@click.option("--listen", default="localhost:7443", show_default=True, help="Address for forwarders.")
@click.option("--mode", "modes", multiple=True, help="Security mode that it serves. Repeatable. Default: hybrid.")
@click.option(
    "--identity", default=f"{first.SITE}/*", show_default=True, help="Whose streams it takes: pattern of identities."
)
@click.option("--admin", default="127.0.0.1:9465", show_default=True, help="Address for metrics and the live page.")
@click.option(
    "--pki",
    type=click.Path(path_type=Path),
    help="Directory with ca.pem, grant.key and receiver.pem, or an authority that issues it. Default: DIRECTORY/pki.",
)
def init(
    directory: Path,
    brokers: tuple[str, ...],
    log_dir: str,
    hosts: tuple[str, ...],
    listen: str,
    modes: tuple[str, ...],
    identity: str,
    admin: str,
    pki: Path | None,
) -> None:
    """Write a first configuration for a receiver on this host.

    Writes logreceiver.toml in DIRECTORY, and checks it. Its certificate is taken from --pki, or issued by the authority
    there. It allows every stream of the hosts with this identity; with --kafka it creates topics that are missing.
    Nothing needs root.

    Exit codes: 0; 1 if a file exists or there is no certificate; 2 for a wrong option; 78 if what would be written is
    not valid. Unless it is 0, nothing is left behind.
    """
    pki, path = pki or directory / "pki", directory / "logreceiver.toml"
    where = first.as_written(pki, directory)
    table = {"type": "kafka", "brokers": list(brokers), "create_topics": True}
    sink = table if brokers else {"type": "log", "directory": log_dir}
    with first.writing(directory, path.name) as written:
        written.leaf(pki, "receiver", identity="logreceiver", hosts=hosts or ("localhost",))
        values: dict[str, object] = {"listen": listen, "modes": list(modes or ("hybrid",)), "identity": identity}
        values |= {"admin": admin, "grant_key": str(where / "grant.key"), "ca": str(where / "ca.pem")}
        values |= {"certificate": str(where / "receiver.pem"), "key": str(where / "receiver.key")}
        shown = {key: edited.shown(value) for key, value in values.items()}
        written.write("logreceiver.toml", CONFIG.format(**shown, sink=edited.text_of(sink)))
        if problems := list(problems_of_files(load_receiver(path))):
            raise ConfigError(problems)
    program.say(f"next: cd {directory.absolute()} && logreceiver run")
