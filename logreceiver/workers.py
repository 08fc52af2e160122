"""`logreceiver run --workers N`: N processes that listen on the same ports (SO_REUSEPORT); the kernel spreads links.

Receivers keep no state, so workers need not know about each other. Limits and metrics of a receiver apply to each
worker: links, memory, counters. A worker that ends by itself is restarted, with the configuration that the others have
taken by then; all end when their parent does. The parent has all of them take a new configuration, or none
(together.py). It computes nothing and opens no file, so that it answers signals at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec
import structlog

from logreceiver.config import ReceiverConfig
from logreceiver.together import Together
from streams import control, descriptors
from streams.program import EX_CONFIG, EX_UNAVAILABLE

RESTART_SECONDS = 1.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HANDLED = {*_SIGNALS, signal.SIGCHLD}

log = structlog.get_logger("logreceiver")


class Worker(NamedTuple):
    """What one of several processes knows of itself: its number, and its connection to the parent."""

    number: int
    parent: socket.socket


def become_worker(count: int, control_socket: Path | None) -> Worker:
    """Returns in each of `count` children. The parent passes signals on, serves operators, and exits after them.

    Raises ControlUnavailable.
    """
    return _Parent(control_socket).keep(count)


class Taken:
    """The configuration that workers took last, in memory that they all inherit."""

    def __init__(self, config: ReceiverConfig) -> None:
        self._file = os.memfd_create("taken")
        self.put(config)

    def put(self, config: ReceiverConfig) -> None:
        data = msgspec.msgpack.encode(config, enc_hook=str)
        with self._locked():
            os.pwrite(self._file, len(data).to_bytes(8) + data, 0)

    def get(self) -> ReceiverConfig:
        with self._locked():
            size = int.from_bytes(os.pread(self._file, 8, 0))
            data = os.pread(self._file, size, 8)
        return msgspec.msgpack.decode(data, type=ReceiverConfig, dec_hook=lambda kind, text: kind(text))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)  # for each process, though all share the descriptor
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class _Parent:
    def __init__(self, control_socket: Path | None) -> None:
        self._control_path = control_socket
        self._control = None if control_socket is None else control.listening(control_socket)
        self._together = Together()
        self._numbers: dict[int, int] = {}
        """Workers by process."""
        self._due: dict[int, float] = {}
        """When workers that have ended start again (monotonic seconds)."""
        self._stopping = False
        self._worst = 0
        self._end_read, self._end_write = os.pipe()
        """Nothing is ever written: children read end-of-file once the parent, which holds the other end, is gone."""
        self._woken_read, self._woken_write = os.pipe()
        """A signal writes here, to end `_wait`."""

    def keep(self, count: int) -> Worker:
        gc.enable()  # for the parent, which runs from here on; see streams/startup.py
        os.set_blocking(self._woken_read, False)
        os.set_blocking(self._woken_write, False)
        signal.set_wakeup_fd(self._woken_write, warn_on_full_buffer=False)
        for each in _HANDLED:
            signal.signal(each, self._signalled)
        self._due = dict.fromkeys(range(count), 0.0)
        while self._numbers or (self._due and not self._stopping):
            now = time.monotonic()
            for number in [number for number, due in self._due.items() if due <= now and not self._stopping]:
                del self._due[number]
                if (worker := self._fork(number)) is not None:
                    return worker
            self._wait()
            self._reap()
            if not self._stopping:
                self._together.reload_if_wanted()
        if self._control_path is not None:
            self._control_path.unlink(missing_ok=True)
        sys.exit(self._worst)

    def _wait(self) -> None:
        """Until a signal, a worker or an operator has something to say, or a worker is due."""
        pause = max(min(self._due.values()) - time.monotonic(), 0.0) if self._due and not self._stopping else None
        heard: list[int | socket.socket] = [self._woken_read, *self._together.sockets()]
        if self._control is not None and not self._stopping:
            heard.append(self._control)
        ready = descriptors.wait_readable(heard, pause)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken_read, 4096)
        self._together.hear()
        if self._control is not None and self._control in ready:
            acts = {"reload": self._together.answer}
            acts |= {name: partial(self._together.question, name) for name in ("status", "links")}
            control.answer_one(self._control, acts)

    def _reap(self) -> None:
        """Take note of workers that have ended."""
        while self._numbers and (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            number, code = self._numbers.pop(found[0]), os.waitstatus_to_exitcode(found[1])
            self._together.remove(number)
            if code in (EX_CONFIG, EX_UNAVAILABLE):
                self._stop(signal.SIGTERM)  # restarting would end the same way
            if self._stopping:
                self._worst = max(self._worst, abs(code))
                continue
            log.error("worker restarting", worker=number, exit_code=code)
            self._due[number] = time.monotonic() + RESTART_SECONDS

    def _fork(self, number: int) -> Worker | None:
        """The worker in the child, without what is the parent's; None in the parent."""
        ours, its = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid:
            its.close()
            self._numbers[pid] = number
            self._together.add(number, ours)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return None
        signal.set_wakeup_fd(-1)
        for each in _HANDLED:
            signal.signal(each, signal.SIG_DFL)
        for fd in (self._end_write, self._woken_read, self._woken_write):
            os.close(fd)
        for sock in (ours, self._control, *self._together.sockets()):
            if sock is not None:
                sock.close()
        threading.Thread(target=_end_with_parent, args=(self._end_read,), daemon=True).start()
        # a child takes SIGHUP when it can, see streams/startup.py
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS - {signal.SIGHUP})
        return Worker(number, its)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._together.wanted = True
        elif number != signal.SIGCHLD:
            self._stop(number)

    def _stop(self, number: int) -> None:
        self._stopping = True
        for pid in list(self._numbers):
            with contextlib.suppress(ProcessLookupError):  # it was waited for a moment ago
                os.kill(pid, number)


def _end_with_parent(end_read: int) -> None:
    os.read(end_read, 1)
    os.kill(os.getpid(), signal.SIGTERM)
