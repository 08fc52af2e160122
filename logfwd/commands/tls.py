"""`logfwd tls probe`: what the far end negotiates for each mode, the chain that it shows, or why not."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import click

from streams import program
from streams.addresses import split_address
from streams.errors import ConfigError, HandshakeFailed
from streams.security import modes

SECONDS = 10.0


@click.group()
def tls() -> None:
    """Look at TLS as another host offers it."""


@tls.command(
    epilog="""\b
Examples:
  logfwd tls probe logs.example.net:7443                  which modes a receiver serves, and its chain
  logfwd tls probe logs.example.net:7443 -c logfwd.toml   and whether our CA and our certificate fit
  logfwd tls probe 192.0.2.7:9093 --name kafka-1 --json   for a script"""
)
@click.argument("address", metavar="HOST:PORT")
@click.option("-c", "--config", type=click.Path(path_type=Path, exists=True), help="Use its certificates and its CA.")
@click.option("--name", help="The name that the certificate should have, instead of HOST.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(address: str, config: Path | None, name: str | None, as_json: bool) -> None:
    """Say which modes HOST:PORT serves, with which chain, or why not.

    Makes a handshake for each mode and sends nothing. Any chain is shown, whoever signed it. With a configuration it
    also says whether a link of this forwarder would accept the chain; without one no certificate is shown, which a
    receiver refuses after a TLS 1.3 handshake and during one of TLS 1.2. Modes that run on our own TLS are left out.

    Exit codes: 0 if a mode is served; 1 if none is; 69 if nothing answers there; 78 for an invalid configuration.
    """
    try:
        split_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="HOST:PORT") from error
    found: list[dict[str, Any]] = []

    async def look() -> None:
        found.extend(await _look(address, config, name))

    program.run(look)
    if as_json:
        click.echo(json.dumps({"address": address, "modes": found}, indent=2))
    else:
        _print(found)
    sys.exit(0 if any(row["served"] for row in found) else 1)


async def _look(address: str, config: Path | None, name: str | None) -> list[dict[str, Any]]:
    from streams.security.connecting import resolve

    credentials = None
    if config is not None:
        from logfwd.config import load_forwarder

        credentials = load_forwarder(config).tls
    await resolve(address)
    return [await _row(address, mode, credentials, name) for mode in modes.MODES.values() if mode.stack == "openssl"]


async def _row(address: str, mode: modes.Mode, credentials: Any, name: str | None) -> dict[str, Any]:
    from streams.security import stacks
    from streams.security.connecting import connect

    row: dict[str, Any] = {"mode": mode.name, "served": False, "why": ""}
    try:
        party = stacks.look(mode, credentials)
    except ConfigError as error:
        return row | {"why": f"not tried: {error}"}
    try:
        link = await connect(address, party, server_name=name, connect_timeout=SECONDS, handshake_timeout=SECONDS)
    except HandshakeFailed as error:
        agreed = error.seen.get("group", "none")
        hint = f" after {error.seen.get('version')} {agreed} was agreed on" if agreed != "none" else ""
        return row | {"why": f"{error}{hint}"}
    facts = link.facts
    link.abort()
    row |= {name: getattr(facts, name) for name in ("version", "group", "cipher", "authentication")}
    row |= {"served": True, "protocol": "logfwd/1" if party.speaks_our_protocol else "", "fault": party.fault}
    return row | {"chain": [_certificate(each) for each in party.chain]}


def _certificate(certificate: Any) -> dict[str, Any]:
    from streams.security.explaining import hosts
    from streams.security.pki import identities, key_algorithm, signature_algorithm

    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "key": key_algorithm(certificate),
        "signed_with": signature_algorithm(certificate),
        "expires": certificate.not_valid_after_utc.isoformat(),
        "hosts": list(hosts(certificate)),
        "identities": list(identities(certificate)),
    }


def _print(found: list[dict[str, Any]]) -> None:
    shown: list[Any] = []
    for row in found:
        if not row["served"]:
            program.say(f"{row['mode']}: no: {row['why']}")
            continue
        ours = "" if row["protocol"] else ", not a receiver of logfwd"
        program.say(f"{row['mode']}: {row['version']} {row['group']} {row['cipher']} {row['authentication']}{ours}")
        if row["fault"]:
            program.say(f"  a link would refuse this chain: {row['fault']}")
        if row["chain"] and row["chain"] not in shown:
            shown.append(row["chain"])
    for number, chain in enumerate(shown, 1):
        program.say(f"chain{f' {number}' if len(shown) > 1 else ''}:")
        for each in chain:
            days = (datetime.datetime.fromisoformat(each["expires"]) - datetime.datetime.now(datetime.UTC)).days
            hosts = f", for {', '.join(each['hosts'])}" if each["hosts"] else ""
            signed = f"signed with {each['signed_with']} by {each['issuer']}"
            program.say(f"  {each['subject']}{hosts}; {each['key']}, {signed}; {days} days left")
