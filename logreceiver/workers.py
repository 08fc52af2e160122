"""`logreceiver run --workers N`: N processes that listen on the same ports (SO_REUSEPORT); the kernel spreads links.

Receivers keep no state, so workers need not know about each other. Limits and metrics of a receiver apply to each
worker: links, memory, counters. A worker that ends by itself is restarted, with the configuration that the others have
taken by then; all end when their parent does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import msgspec
import structlog

from logreceiver.config import ReceiverConfig
from streams.program import EX_CONFIG, EX_UNAVAILABLE

RESTART_SECONDS = 1.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

log = structlog.get_logger("logreceiver")


def become_worker(count: int) -> int:
    """Returns in each of `count` children, with its number. The parent passes signals on, and exits after them."""
    return _Parent().keep(count)


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
    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._stopping = False
        self._end_read, self._end_write = os.pipe()
        """Nothing is ever written: children read end-of-file once the parent, which holds the other end, is gone."""

    def keep(self, count: int) -> int:
        for each in _SIGNALS:
            signal.signal(each, self._pass_on)
        for number in range(count):
            if self._fork(number):
                return number
        worst = 0
        while self._numbers:
            pid, status = os.waitpid(-1, 0)
            number, code = self._numbers.pop(pid), os.waitstatus_to_exitcode(status)
            if code in (EX_CONFIG, EX_UNAVAILABLE):
                self._pass_on(signal.SIGTERM, None)  # restarting would end the same way
            if self._stopping:
                worst = max(worst, abs(code))
                continue
            log.error("worker restarting", worker=number, exit_code=code)
            time.sleep(RESTART_SECONDS)
            if self._fork(number):
                return number
        sys.exit(worst)

    def _fork(self, number: int) -> bool:
        """True in the child, with the parent's signal handlers and pipe end removed."""
        if self._stopping:
            return False
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid:
            self._numbers[pid] = number
        else:
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            os.close(self._end_write)
            threading.Thread(target=_end_with_parent, args=(self._end_read,), daemon=True).start()
        # a child takes SIGHUP when it can, see streams/startup.py
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS if pid else _SIGNALS - {signal.SIGHUP})
        return not pid

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):  # it was waited for a moment ago
                os.kill(pid, number)


def _end_with_parent(end_read: int) -> None:
    os.read(end_read, 1)
    os.kill(os.getpid(), signal.SIGTERM)
