"""Stops a child process before every system call that changes a file or sends (ptrace), so that a test can look.

What a file holds when its process is stopped there is what kill -9 at that moment would leave. Threads are followed.
Linux on x86_64 or aarch64 only; `reason_not_to` says what is missing elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
_SYSGOOD, _TRACECLONE, _EXITKILL = 1, 8, 0x100000
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2
_NAMES = {
    "x86_64": {
        1: "write",
        18: "pwrite64",
        20: "writev",
        44: "sendto",
        46: "sendmsg",
        74: "fsync",
        75: "fdatasync",
        77: "ftruncate",
        82: "rename",
        84: "rmdir",
        83: "mkdir",
        87: "unlink",
        263: "unlinkat",
        264: "renameat",
        285: "fallocate",
        316: "renameat2",
    },
    "aarch64": {
        64: "write",
        68: "pwrite64",
        66: "writev",
        206: "sendto",
        211: "sendmsg",
        82: "fsync",
        83: "fdatasync",
        46: "ftruncate",
        34: "mkdirat",
        35: "unlinkat",
        38: "renameat",
        47: "fallocate",
        276: "renameat2",
    },
}
SYNCS = ("fsync", "fdatasync")


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info (linux/ptrace.h), with the part for an entry."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


@dataclass(frozen=True)
class Call:
    """A system call that is about to be made, or (`done`) was made. `file`: of its first argument, if that is one."""

    name: str
    file: str
    done: bool


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def reason_not_to() -> str:
    """Why this cannot work here, with a remedy; empty if it can."""
    if platform.system() != "Linux" or platform.machine() not in _NAMES:
        return "needs Linux on x86_64 or aarch64 to stop a process at its system calls"
    try:
        watch(["/bin/true"], lambda _: None)
    except (OSError, subprocess.SubprocessError) as error:
        return f"ptrace is not permitted here ({error}); in a container, add the capability SYS_PTRACE"
    return ""


def watch(argv: Sequence[str], at_call: Callable[[Call], None], *, stdout: IO[bytes] | int | None = None) -> int:
    """Run a program to its end, calling back before each call that changes a file, and after each sync."""
    child = subprocess.Popen(argv, stdout=stdout, preexec_fn=_be_traced, process_group=0)  # noqa: PLW1509
    try:
        os.waitpid(child.pid, _WALL)
        _ptrace(_SETOPTIONS, child.pid, 0, _SYSGOOD | _TRACECLONE | _EXITKILL)
        _ptrace(_SYSCALL, child.pid)
        child.returncode = _follow(child.pid, at_call)
    finally:
        if child.returncode is None:
            child.kill()
            child.returncode = _reap(child.pid)
    return child.returncode


def _reap(pid: int) -> int:
    """Take the ends of all threads: that of the process itself comes last."""
    while True:
        thread, status = os.waitpid(-pid, _WALL)
        if thread == pid and not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)


def _be_traced() -> None:
    """In the child, before its program: one system call, and nothing that another thread could hold."""
    _libc.ptrace(_TRACEME, 0, None, None)


def _follow(pid: int, at_call: Callable[[Call], None]) -> int:
    names = _NAMES[platform.machine()]
    under_way: dict[int, Call] = {}
    while True:
        thread, status = os.waitpid(-pid, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == pid:
                return os.waitstatus_to_exitcode(status)
            continue
        stopped_by, deliver = os.WSTOPSIG(status), 0
        if stopped_by == signal.SIGTRAP | 0x80:
            info = _Info()
            size = _libc.ptrace(_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
            if size > 0 and info.op == _ENTRY and (name := names.get(info.number)) is not None:
                call = Call(name, _file_of(thread, info.arguments[0]), done=False)
                under_way[thread] = call
                at_call(call)
            elif size > 0 and info.op == _EXIT:
                finished = under_way.pop(thread, None)
                if finished is not None and finished.name in SYNCS:
                    at_call(Call(finished.name, finished.file, done=True))
        elif stopped_by not in (signal.SIGTRAP, signal.SIGSTOP):
            deliver = stopped_by
        try:
            _ptrace(_SYSCALL, thread, 0, deliver)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def _file_of(thread: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{descriptor}")
    except OSError:
        return ""
