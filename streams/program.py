"""What both programs do around their main loop: run on uvloop, obey signals, turn errors into exit codes.

Exit codes follow sysexits: 78 for a configuration that cannot be used, 69 for something that is not available.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import click

from streams.errors import ConfigError, PipelineError
from streams.telemetry import logs

EX_UNAVAILABLE = 69
EX_CONFIG = 78
_M_ARENA_MAX = -8  # of malloc.h
_HEAP_KEPT_BYTES = 4 * 1024 * 1024

SAME_SIGNAL_SECONDS = 0.5
"""A terminal or service manager signals parent and workers alike, and the parent passes it on: that is one request."""

log = logs.get_logger("program")


class Commands(click.Group):
    """A group whose `elsewhere` subcommands live in other modules, imported only when called: start-up stays cheap."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._elsewhere = elsewhere

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *self._elsewhere])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._elsewhere:
            return super().get_command(context, name)
        command: click.Command = getattr(importlib.import_module(self._elsewhere[name]), name)
        return command


def run(main: Callable[[Stop], Awaitable[None]]) -> None:
    """Run a program's coroutine to its end; exits the process with a code that says how it ended."""
    import uvloop

    settle_heap()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_with_signals(main))
    except ConfigError as error:
        refuse_config(error)
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EX_UNAVAILABLE)


def settle_heap() -> None:
    """Suit glibc's malloc to threads that hand batches to each other; with another libc this does nothing.

    One heap for all of them: with a heap for each, which is the default, memory is not reused where it is freed, and a
    full-speed forwarder takes 5 MB more. And a heap that keeps what sealing a block needs, instead of giving it back
    and faulting it in again for each block: once a piece of this size was freed, malloc gives back only what exceeds
    twice as much (mallopt(3), "dynamic mmap threshold").
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    bytes(_HEAP_KEPT_BYTES)


def refuse_config(error: ConfigError) -> NoReturn:
    """Print every problem of a configuration, then exit with 78 (EX_CONFIG)."""
    for problem in error.problems:
        click.echo(str(problem), err=True)
    sys.exit(EX_CONFIG)


class Stop:
    """The operator's signals: `requested` is set by SIGTERM or SIGINT; `on_reload` is called at SIGHUP."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._requested_at = 0.0
        self.on_reload: Callable[[], Awaitable[object]] | None = None
        self._reload: asyncio.Task[object] | None = None

    def stop(self) -> None:
        """The first signal stops in an orderly way, the second exits at once: nothing of value is only in memory."""
        if self.requested.is_set():
            if time.monotonic() - self._requested_at < SAME_SIGNAL_SECONDS:
                return
            log.warning("stopping at once")
            os._exit(1)
        log.info("stopping")
        self._requested_at = time.monotonic()
        self.requested.set()

    def reload(self) -> None:
        """Reload, unless a reload is still under way."""
        if self.on_reload is not None and (self._reload is None or self._reload.done()):
            self._reload = asyncio.ensure_future(self.on_reload())


async def _with_signals(main: Callable[[Stop], Awaitable[None]]) -> None:
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.stop)
    loop.add_signal_handler(signal.SIGHUP, stop.reload)
    await main(stop)
