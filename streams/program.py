"""What both programs do around their main loop: run on uvloop, obey signals, turn errors into exit codes.

Exit codes follow sysexits: 78 for a configuration that cannot be used, 69 for something that is not available, 70 for a
fault of the program itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import click

from streams import descriptors
from streams.columns import harmless
from streams.errors import ConfigError, PipelineError
from streams.signals import Stop, leave
from streams.telemetry import logs
from streams.telemetry.logformat import FORMATS

EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CONFIG = 78
LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(list(logs.LEVELS)),
    default="info",
    show_default=True,
    help="Log events of this level and above.",
)
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    help="How log lines are written; without it, console (for people) if stderr is a terminal, else json.",
)
_M_ARENA_MAX = -8  # of malloc.h
_HEAP_KEPT_BYTES = 4 * 1024 * 1024

log = logs.get_logger("program")


class Commands(click.Group):
    """A group whose `elsewhere` subcommands live in other modules, imported only when called: start-up stays cheap."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._elsewhere = elsewhere

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *self._elsewhere])

    def invoke(self, context: click.Context) -> Any:
        """Run the subcommand; the words of its failure do nothing to a terminal, either."""
        try:
            return super().invoke(context)
        except click.ClickException as error:
            vars(error)["message"] = harmless(error.message, keep="\n")
            raise

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._elsewhere:
            return super().get_command(context, name)
        command: click.Command = getattr(importlib.import_module(self._elsewhere[name]), name)
        return command


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a command's coroutine to its end; exits the process with a code that says how it failed, if it did."""
    import uvloop

    settle_heap()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_awaited(main()))
    except ConfigError as error:
        refuse_config(error)
    except PipelineError as error:
        end_unavailable(error)


SWITCH_SECONDS = 0.0005


def favour_loop() -> None:
    """From now on a thread that computes keeps the event loop from running for 0.5 ms, instead of Python's 5.

    Each time that the loop has called the kernel, it waits as long for every such thread: with peers that are to be
    answered soon that adds up. But where threads compute all the time, switching takes a tenth more of the CPU.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def serve(main: Callable[[Stop], Awaitable[None]], *, peers_wait: bool = False) -> NoReturn:
    """Run a program until it ends or is told to stop; then end the process, whatever its threads are doing."""
    settle_heap()
    if peers_wait:
        favour_loop()
    descriptors.raise_limit()
    threading.excepthook = _end_with_thread
    leave(_served(main))


def _served(main: Callable[[Stop], Awaitable[None]]) -> int:
    """The exit code. The runner is not closed: that would wait for threads, some of which may hang."""
    import uvloop

    try:
        asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_with_signals(main))
    except ConfigError as error:
        for problem in error.problems:
            logs.say(str(problem))
        return EX_CONFIG
    except PipelineError as error:
        logs.say(f"error: {error}")
        return EX_UNAVAILABLE
    except BaseException as error:  # the top of the program
        log.exception("program failed", reason=f"{type(error).__name__}: {error}")
        return EX_SOFTWARE
    return 0


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread that nobody answers for has died: without it the program would only seem to run."""
    name = "" if failed.thread is None else failed.thread.name
    error = failed.exc_value or failed.exc_type()
    log.exception("thread failed", thread=name, reason=f"{type(error).__name__}: {error}")
    leave(EX_SOFTWARE)


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


def trim_heap() -> None:
    """Give memory that glibc's malloc keeps back to the system: a few milliseconds, in which others wait for it."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


FULL_GENERATION = 2
NEW_OBJECTS, NEWEST_COLLECTIONS = 700, 3
"""A collection visits the newest objects when there are so many, and every fourth one those that the others left."""


def has_started() -> None:
    """Call once a program runs: collections begin, and leave out what it was built from, which stays until its end.

    To visit these objects alone, a full collection would hold up every stream for 5 to 12 ms; and for more than 100 ms
    to visit those of 2000 links. So whatever survives one that visits more than the newest objects is left out of the
    next, too, and there are such collections so often that none takes long: objects are freed when nobody refers to
    them, and the few that refer to each other wait for one of the collections that visit everything.
    """
    gc.callbacks.append(_Survivors())
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, NEWEST_COLLECTIONS)
    gc.enable()


class _Survivors:
    """Leaves what has survived a collection out of those that follow; now and then one visits everything."""

    ALL_SECONDS = 600.0

    def __init__(self) -> None:
        self._all_at = time.monotonic()

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] == 0:
            return
        if phase == "stop":
            gc.freeze()
        elif info["generation"] == FULL_GENERATION and (now := time.monotonic()) >= self._all_at + self.ALL_SECONDS:
            self._all_at = now
            gc.unfreeze()


def say(line: object, *, err: bool = False) -> None:
    """Print a line for people. Whatever a peer, a file or a record put into it does nothing to their terminal."""
    click.echo(harmless(str(line)), err=err)


def refuse_config(error: ConfigError) -> NoReturn:
    """Print every problem of a configuration, then exit with 78 (EX_CONFIG)."""
    for problem in error.problems:
        logs.say(str(problem))
    sys.exit(EX_CONFIG)


def end_unavailable(error: Exception) -> NoReturn:
    """Print what is not available, then exit with 69."""
    say(f"error: {error}", err=True)
    sys.exit(EX_UNAVAILABLE)


async def _awaited(main: Awaitable[None]) -> None:
    await main


async def _with_signals(main: Callable[[Stop], Awaitable[None]]) -> None:
    stop = Stop()
    stop.watch()
    await main(stop)
