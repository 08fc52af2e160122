"""A client for a running program's admin address: its streams, and their batch durations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from logfwd.config import load_forwarder
from streams.errors import ConfigError
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

ANSWER_SECONDS = 3.0


def admin_of(config: Path) -> str:
    """The admin address of the forwarder with this logfwd.toml; raises NotAnswered."""
    try:
        admin = load_forwarder(config).admin
    except ConfigError as error:
        raise NotAnswered("\n".join(str(problem) for problem in error.problems)) from error
    if admin is None:
        raise NotAnswered(f"{config}: admin = false, so this forwarder has no admin address; set admin.address")
    if admin.address.endswith(":0"):
        raise NotAnswered(f"{config}: the system chose the admin port; pass the address from the log with --admin")
    return admin.address


def ask(admin: str, path: str) -> Any:
    """The JSON at a path of an admin address; None for 404."""
    answer = client.ask(admin, path, seconds=ANSWER_SECONDS)
    try:
        return None if answer is None else json.loads(answer)
    except ValueError as error:
        raise NotAnswered(f"{admin}{path} answers with something else than JSON: {error}") from error


def streams(admin: str) -> list[dict[str, Any]]:
    """The rows of /api/v1/streams."""
    answer = ask(admin, "/api/v1/streams")
    if not isinstance(answer, dict) or not isinstance(answer.get("streams"), list):
        raise NotAnswered(f"{admin} answers, but has no /api/v1/streams: is it the admin of logfwd or logreceiver?")
    return list(answer["streams"])


def batch_durations(admin: str, stream: str, since: int) -> tuple[int, list[float]]:
    """(batches acknowledged so far, durations in seconds of those after the first `since`)."""
    answer = ask(admin, f"/api/v1/streams/{quote(stream, safe='')}/batch-durations?since={since}")
    return (0, []) if answer is None else (int(answer["count"]), list(answer["seconds"]))
