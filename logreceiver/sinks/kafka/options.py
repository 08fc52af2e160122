"""TLS and SASL for connections to Kafka, from the `[sink]` section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logreceiver.sinks.settings import KafkaSink
from streams.config.sections import SinkTls
from streams.errors import ConfigError, Problem


def connection_options(settings: KafkaSink) -> dict[str, Any]:
    """Arguments for every connection. ConfigError for a file that cannot be used."""
    options: dict[str, Any] = {}
    encrypted = settings.security != "plaintext"
    options["security_protocol"] = ("SASL_" if settings.sasl else "") + ("SSL" if encrypted else "PLAINTEXT")
    if encrypted:
        if settings.tls is None:
            raise ConfigError([Problem(Path(), "sink.tls", f"is required for security = {settings.security!r}")])
        options["ssl_context"] = _context(settings.security, settings.tls)
    if settings.sasl is not None:
        options["sasl_mechanism"] = settings.sasl.mechanism
        options["sasl_plain_username"] = settings.sasl.username
        options["sasl_plain_password"] = _password(settings.sasl.password_file)
    return options


def credentials(settings: KafkaSink) -> tuple[object, ...]:
    """What connections are made with, the contents of the files included: equal as long as nothing changed.

    A file that cannot be read is for `connection_options` to refuse.
    """
    return (settings.security, settings.tls, settings.sasl, *map(_contents, settings.files))


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _context(mode_name: str, tls: SinkTls) -> Any:
    from streams.security import stacks
    from streams.security.modes import MODES

    if (own := tls.own) is not None:
        return stacks.ssl_context(MODES[mode_name], own)
    return stacks.anonymous_context(MODES[mode_name], tls.section, tls.ca)


def _password(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(path, "sink.sasl.password_file", str(error))]) from error
