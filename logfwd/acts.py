"""What an operator may ask of a running forwarder over its control socket."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from logfwd.config import load_forwarder
from logfwd.forwarder import Forwarder
from streams.control import Act, Flow, reloading


def acts_of(forwarder: Forwarder, path: Path) -> dict[str, Act]:
    """By name; `path` is that of its configuration."""

    async def status(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"now": time.time(), "trouble": forwarder.troubles(), "streams": forwarder.describe()}

    return {"reload": reloading(partial(forwarder.reload, lambda: load_forwarder(path))), "status": status}


def flows_of(forwarder: Forwarder) -> dict[str, Flow]:
    """By name."""

    def tap(asked: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        streams = [stream.name for stream in forwarder.config.streams]
        return forwarder.taps.lines(streams, str(asked.get("stream")), asked.get("rate"))

    return {"tap": tap}
