"""The operator's signals: SIGTERM and SIGINT stop a program, within its grace; SIGHUP reloads it, unless its terminal
has been closed: that stops it, too.

A thread of its own waits for them, so that they are obeyed whatever the event loop is doing: when the grace is over and
something still hangs (a file system that does not answer, an fsync), the process ends as if it were killed, which the
spool and the sinks are made for. The signals are blocked in all other threads, which inherit that: so the thread has to
be started before them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from streams.telemetry import logs

SAME_SIGNAL_SECONDS = 0.5
"""A terminal or service manager signals parent and workers alike, and the parent passes it on: that is one request."""
CLOSING_SECONDS = 3.0
"""What closing files may take after the grace."""
LONG_SECONDS = 86400.0

EX_FORCED = 1

_STOPS = (signal.SIGTERM, signal.SIGINT)
_SI_KERNEL = 0x80
"""Who sent a signal: the kernel itself, sigaction(2); a person's `kill` says otherwise."""

log = logs.get_logger("program")


class Stop:
    """`requested` is set by SIGTERM or SIGINT; `on_reload` is called at SIGHUP. Made on the event loop."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.grace_seconds: Callable[[], float] = lambda: 0.0
        """How long an orderly stop may take, apart from CLOSING_SECONDS."""
        self._on_reload: Callable[[], Awaitable[object]] | None = None
        self._reload_wanted = False
        self._reloading: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._requested_at: float | None = None
        self._ends_with_terminal = False

    # -- on the event loop -------------------------------------------------------------------------------------

    @property
    def on_reload(self) -> Callable[[], Awaitable[object]] | None:
        """What SIGHUP asks for. A request that came before there was anything to call is not forgotten."""
        return self._on_reload

    @on_reload.setter
    def on_reload(self, reload: Callable[[], Awaitable[object]]) -> None:
        self._on_reload = reload
        if self._reload_wanted:
            self._begin_reloading()

    def reload(self) -> None:
        """Reload; once more after the reload that is under way, which may have read the files before they changed."""
        self._reload_wanted = True
        if self._on_reload is not None and (self._reloading is None or self._reloading.done()):
            self._begin_reloading()

    def _begin_reloading(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        while self._reload_wanted and not self.requested.is_set():
            self._reload_wanted = False
            assert self._on_reload is not None
            try:
                await self._on_reload()
            except Exception as error:  # the top of a task: what ran goes on
                log.exception("reload failed", reason=f"{type(error).__name__}: {error}")

    # -- in the thread of signals ------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to take signals; they are blocked in this thread and in those that it starts from now on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPS, signal.SIGHUP})
        self._ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup
        threading.Thread(target=self._take, name="signals", daemon=True).start()

    def _take(self) -> None:
        while True:
            taken = signal.sigtimedwait({*_STOPS, signal.SIGHUP}, self._patience())
            if taken is None:
                self._force()
            elif taken.si_signo == signal.SIGHUP and not self._has_lost_terminal(taken):
                self._loop.call_soon_threadsafe(self.reload)
            else:
                self._stop()

    def _has_lost_terminal(self, taken: signal.struct_siginfo) -> bool:
        """Whether SIGHUP is what closing its terminal sends: the kernel's own, or passed on by a shell."""
        return self._ends_with_terminal and (taken.si_code == _SI_KERNEL or not _has_terminal())

    def _patience(self) -> float:
        if self._requested_at is None:
            return LONG_SECONDS
        end = self._requested_at + self.grace_seconds() + CLOSING_SECONDS
        return max(end - time.monotonic(), 0.0)

    def _stop(self) -> None:
        """The first signal stops in an orderly way, the second exits at once: nothing of value is only in memory."""
        now = time.monotonic()
        if self._requested_at is None:
            remedy = "a second signal ends it at once, and loses nothing"
            log.info("stopping", within_seconds=self.grace_seconds() + CLOSING_SECONDS, remedy=remedy)
            self._requested_at = now
            self._loop.call_soon_threadsafe(self.requested.set)
        elif now - self._requested_at >= SAME_SIGNAL_SECONDS:
            log.warning("stopping at once")
            leave(EX_FORCED)

    def _force(self) -> None:
        if self._requested_at is None:  # a quiet day
            return
        hanging = sorted(each.name for each in threading.enumerate() if not each.daemon)
        log.error("stop took too long", threads=hanging, remedy="look for a disk or file system that does not answer")
        leave(EX_FORCED)


def _has_terminal() -> bool:
    """Whether there is a terminal that could be closed, tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def leave(code: int) -> NoReturn:
    """End the process without waiting for any thread; only for the last log lines, for a bounded time."""
    logs.flush()
    os._exit(code)
