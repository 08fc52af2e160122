"""Log lines on their way to standard error: a bounded queue, and a thread that alone waits for whoever reads them.

A caller never waits and never gets an error, whatever standard error is: a pipe that nobody reads, a full disk, closed.
A line that finds no room in the queue, or that cannot be written, is dropped and counted; how many were is said in a
line of their own as soon as lines can be written again. The thread leaves the descriptor's flags alone, because other
processes share it.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import threading
from collections.abc import Callable

MAX_WAITING_BYTES = 1024 * 1024
FLUSH_SECONDS = 1.0
"""Longest that the end of a program waits until the lines before it are written."""


def start_without_signals(thread: threading.Thread) -> bool:
    """Start a thread that gets no signals: it may run before anyone knows what to do with them. False if that fails."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads to give
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


class LogWriter(logging.Handler):
    """Writes what it is given to a file descriptor. `on_dropped` logs how many lines were dropped before."""

    def __init__(self, descriptor: int, on_dropped: Callable[[int], object]) -> None:
        super().__init__()
        self._descriptor, self._on_dropped = descriptor, on_dropped
        self.dropped = 0
        """Lines that were dropped so far."""
        self._not_told = 0
        """Those of them that no line has told of."""
        self._told = True
        """The line that told of them was written."""
        self._torn = False
        """The last line was written in part."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Nothing waits. A forked process begins anew: what waits is for the thread of its parent to write."""
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._counting = threading.RLock()  # a finalizer may log while its thread counts
        self._queued_bytes = self._written_bytes = 0
        """Written or dropped, of the queued."""
        self._thread: threading.Thread | None = None

    def createLock(self) -> None:
        """None: `flush` waits for the thread, which logs, too."""
        self.lock = None

    # -- for loggers -------------------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 — a value that cannot be shown is no reason to fail
            self._drop()
        else:
            self.write(line)

    def write(self, line: str) -> None:
        """Queue a line, given without its end."""
        data = line.encode(errors="backslashreplace") + b"\n"
        if threading.current_thread() is self._thread:
            self._told = self._put(data)
            return
        with self._counting:
            has_room = self._queued_bytes - self._written_bytes + len(data) <= MAX_WAITING_BYTES
            if has_room:
                self._queued_bytes += len(data)
        if not has_room:
            self._drop()
            return
        self._queue.put(data)
        self._start()

    def flush(self) -> None:
        """Wait until the lines so far are written, but not for long: nobody may be reading."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._queue.put(done)
            done.wait(FLUSH_SECONDS)

    def _drop(self) -> None:
        with self._counting:
            self.dropped += 1
            self._not_told += 1

    def _start(self) -> None:
        with self._counting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread = thread if start_without_signals(thread) else None  # the next line tries again

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            if not self._put(item):
                self._drop()
            elif self._not_told:
                self._tell()
            self._written_bytes += len(item)

    def _tell(self) -> None:
        """Say how many lines were dropped; `on_dropped` logs, which leads to `write` in this thread."""
        lines, self._told = self._not_told, True
        self._on_dropped(lines)
        if self._told:
            with self._counting:
                self._not_told -= lines

    def _put(self, line: bytes) -> bool:
        """Write a line as a whole; False if that is not possible."""
        data = memoryview(b"\n" + line if self._torn else line)
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                    self._torn = True
                except BlockingIOError:  # another process made it non-blocking
                    self._wait_for_room()
        except OSError:
            return False
        self._torn = False
        return True

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()
