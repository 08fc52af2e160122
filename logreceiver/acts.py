"""What an operator may ask of a running receiver; its answers have a row for each of several workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from logreceiver.config import load_receiver
from logreceiver.service import Service
from streams.control import Act, reloading

QUESTIONS: dict[str, Callable[[Service], Awaitable[dict[str, Any]]]] = {
    "status": Service.status,
    "links": Service.links,
}
"""Acts that change nothing; each worker answers for itself."""


def acts_of(service: Service, path: Path) -> dict[str, Act]:
    """By name, for a receiver without workers; `path` is that of its configuration."""

    return {
        "reload": reloading(partial(service.reload, lambda: load_receiver(path))),
        **{name: _alone(service, question) for name, question in QUESTIONS.items()},
    }


def _alone(service: Service, question: Callable[[Service], Awaitable[dict[str, Any]]]) -> Act:
    async def answer(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"workers": [{"worker": 0, **await question(service)}], "silent": []}

    return answer
