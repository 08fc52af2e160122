"""`logfwd validate --connect`: one TLS link for each stream, and the result of its handshake."""

from __future__ import annotations

import click

from logfwd.config import ForwarderConfig
from logfwd.links.connector import Connector
from logfwd.metrics import ForwarderMetrics
from streams.errors import LinkError
from streams.telemetry.metrics import CollectorRegistry


async def probe(config: ForwarderConfig) -> None:
    """Print a line for each stream; raises the last LinkError if any stream has no link."""
    connector = Connector(config, ForwarderMetrics(CollectorRegistry()))
    failed: LinkError | None = None
    for stream in config.streams:
        try:
            link = await connector.of(stream)()
        except LinkError as error:
            click.echo(f"{stream.name}: no link: {error}", err=True)
            failed = error
            continue
        facts = link.facts
        click.echo(f"{stream.name}: {link.peer} {facts.version} {facts.group} {facts.cipher} {facts.authentication}")
        await link.close()
    if failed is not None:
        raise failed
