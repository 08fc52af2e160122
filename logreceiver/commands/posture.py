"""`logreceiver posture`: queries running receivers, merges the answers of workers, and prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from logreceiver.commands.options import CONFIG, load
from logreceiver.posture import Certificate, Report, Share, merge
from streams import program
from streams.addresses import join_address, split_address
from streams.columns import harmless, show_bytes
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

WIDTH_OF_A_FILE = 180
"""Used where there is no terminal to ask for its width."""


@click.command()
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

    Prints, for each stream and identity, the share of links and of bytes by TLS group, TLS version, authentication and
    certificate algorithm since the receiver started, and the age of the oldest open link (h:mm:ss). The rows "to the
    sink" show the same of the receiver's own connections to Kafka, authenticated by the brokers. Then the certificates
    of the forwarders, soonest to expire first. Exits with 69 if no receiver answers.
    """
    try:
        report = ask(addresses or (_configured_address(path),))
    except NotAnswered as error:
        program.say(f"no receiver answers: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    show(report, as_json=as_json)


def _configured_address(path: Path) -> str:
    admin = load(path).admin
    if admin is None:
        raise click.UsageError(
            "the configuration turns admin off, so there is no address to query; name one with --admin"
        )
    host, port = split_address(admin.address)
    return join_address(host or "127.0.0.1", port)


def ask(addresses: Sequence[str]) -> Report:
    """One report on all receivers, or workers of one receiver, at these admin addresses."""
    return merge([_ask_one(address) for address in addresses])


def _ask_one(address: str) -> Report:
    answer = client.ask(address, "/api/v1/posture")
    if answer is None:
        raise NotAnswered(f"{address} answers, but has no /api/v1/posture: is it the admin of a receiver?")
    try:
        return msgspec.json.decode(answer, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAnswered(f"{address}: its answer is not a posture report of this version: {error}") from error


def show(report: Report, *, as_json: bool) -> None:
    """Print to stdout: for people, or as JSON."""
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(report), indent=2))
        return
    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(markup=False, width=WIDTH_OF_A_FILE)
    console.print(
        f"since {report.since:%Y-%m-%dT%H:%M:%SZ}: {report.links} links, {report.open_links} open, "
        f"{show_bytes(report.bytes)} in batches"
    )
    console.print(_streams(report))
    console.print(_certificates(report.certificates))
    if report.forgotten:
        console.print(f"{report.forgotten} accounts were forgotten to bound memory: those unused for longest")


def _streams(report: Report) -> Table:
    table = _table(
        ("stream", "identity", "group", "TLS", "authentication", "certificate"),
        ("links", "share", "open", "oldest", "bytes", "share"),
    )
    for each in report.streams:
        for number, share in enumerate(each.shares):
            names = ("", "") if number else (harmless(each.stream), harmless(each.identity))
            table.add_row(*names, *_cells(share))
    for name, shares in (("all", report.shares), ("to the sink", report.sink)):
        table.add_section()
        for number, share in enumerate(shares):
            table.add_row("" if number else name, "", *_cells(share))
    return table


def _cells(share: Share) -> tuple[str, ...]:
    return (
        share.group,
        share.version,
        share.authentication,
        share.certificate_algorithm,
        str(share.links),
        f"{share.share_of_links:.2%}",
        str(share.open_links),
        _age(share.oldest_open_link_seconds),
        show_bytes(share.bytes),
        f"{share.share_of_bytes:.2%}",
    )


def _certificates(certificates: Sequence[Certificate]) -> Table:
    table = _table(("certificate of", "key", "expires"), ("days left", "open links"))
    for each in certificates:
        expires = "unknown" if each.expires is None else f"{each.expires:%Y-%m-%dT%H:%M:%SZ}"
        days = "" if each.days_left is None else f"{each.days_left:.1f}"
        table.add_row(harmless(each.identity), each.algorithm, expires, days, str(each.open_links))
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table()
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
