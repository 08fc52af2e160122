"""A client for a running program's admin address: its streams, and their batch durations."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

ANSWER_SECONDS = 3.0


class Unanswered(Exception):
    """An address does not answer, or it is not one of our admin addresses; the text says what to check."""


def ask(admin: str, path: str) -> Any:
    """The JSON at a path of an admin address (HOST:PORT or URL); None for 404."""
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Unanswered(f"{admin} is not a valid admin address; give HOST:PORT or http://HOST:PORT")
    try:
        with urllib.request.urlopen(url + path, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 — http(s) only, see above
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Unanswered(f"{url}{path} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unanswered(f"{url} does not answer: {reason}; is it the `admin.address` of a running program?") from error


def streams(admin: str) -> list[dict[str, Any]]:
    """The rows of /api/v1/streams."""
    answer = ask(admin, "/api/v1/streams")
    if not isinstance(answer, dict) or not isinstance(answer.get("streams"), list):
        raise Unanswered(f"{admin} answers, but has no /api/v1/streams: is it the admin of logfwd or logreceiver?")
    return list(answer["streams"])


def batch_durations(admin: str, stream: str, since: int) -> tuple[int, list[float]]:
    """(batches acknowledged so far, durations in seconds of those after the first `since`)."""
    answer = ask(admin, f"/api/v1/streams/{quote(stream, safe='')}/batch-durations?since={since}")
    return (0, []) if answer is None else (int(answer["count"]), list(answer["seconds"]))
