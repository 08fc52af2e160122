"""A socket of datagrams, each a message: UDP, or a Unix socket such as /dev/log.

It is always read, whatever becomes of the messages: a Unix datagram socket that is not read blocks the programs that
log to it (sshd, cron, sudo), and the kernel drops what a UDP socket has no room for. Beyond the inbox's room messages
are dropped and counted; so are those that the kernel has dropped (SO_MEMINFO). Senders that never pause are read in
pieces, with a rest of a millisecond between two while batches are under way (turns.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence

from logfwd.sources.syslog.counts import Losses
from logfwd.sources.syslog.inbox import Inbox, Records
from logfwd.sources.syslog.settings import Served, SyslogSource
from logfwd.sources.turns import REST_SECONDS
from streams.addresses import join_address, split_address
from streams.config.units import KIB, MIB

SO_MEMINFO = 55
"""Linux: what a socket uses, nine numbers (u32); the last is how many datagrams were dropped since it was made."""
_MEMINFO = struct.Struct("@32xI")

RECEIVE_BYTES = 4 * MIB
"""Asked of the kernel, which gives at most net.core.rmem_max."""
AT_ONCE, AT_ONCE_BYTES = 128, 16 * KIB
"""Datagrams read before others get their turn, and their size."""
MOST_AT_THE_END = 65_536
"""Datagrams read when the socket is closed; some senders never pause."""


class Datagrams:
    """One socket."""

    def __init__(
        self,
        transport: str,
        address: str,
        served: Served,
        inbox: Inbox,
        losses: Losses,
        must_rest: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport, self._configured = transport, address
        self._must_rest = must_rest
        self._resting: asyncio.TimerHandle | None = None
        self._served, self._inbox, self._losses = served, inbox, losses
        self._socket: socket.socket | None = None
        self._dropped_by_kernel = 0
        self._inode: tuple[int, int] | None = None
        self._buffer = bytearray()
        self.address = ""

    @property
    def _settings(self) -> SyslogSource:
        return self._served.settings

    async def open(self) -> None:
        """Bind the socket and read it from now on; OSError if that is not possible."""
        if self._transport == "unix":
            self._socket = _unix_socket(self._configured, self._settings.permissions)
            found = os.stat(self._configured)
            self._inode = found.st_dev, found.st_ino
            self.address = f"unix:{self._configured}"
        else:
            self._socket = await _udp_socket(self._configured)
            host, _ = split_address(self._configured)
            bound = self._socket.getsockname()
            self.address = join_address(host or bound[0], bound[1])
        self._go_on()

    def use(self, served: Served) -> None:
        """Go on with other limits; OSError if the permissions cannot be changed."""
        before, self._served = self._settings, served
        if self._inode is not None and before.permissions != self._settings.permissions:
            os.chmod(self._configured, self._settings.permissions)

    async def stop(self) -> None:
        """Take what has come, and nothing more."""
        if self._socket is None:
            return
        self._stop_reading()
        for _ in range(MOST_AT_THE_END // AT_ONCE):
            if not self._read():
                break
        self._socket.close()
        self._socket = None
        if self._inode is not None:
            with contextlib.suppress(OSError):
                found = os.stat(self._configured)
                if (found.st_dev, found.st_ino) == self._inode:  # not one that somebody else has put there
                    os.unlink(self._configured)

    def _go_on(self) -> None:
        assert self._socket is not None
        self._resting = None
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._arrived)

    def _stop_reading(self) -> None:
        assert self._socket is not None
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _arrived(self) -> None:
        if self._read() and self._must_rest():
            self._stop_reading()
            self._resting = asyncio.get_running_loop().call_later(REST_SECONDS, self._go_on)

    def _read(self) -> bool:
        """Take some of what has come; False if that was all."""
        messages, is_all = self._receive()
        if messages:
            self._put(messages)
        self._count_dropped_by_kernel()
        return not is_all

    def _receive(self) -> tuple[list[bytes], bool]:
        """Messages that have come, and whether those are all."""
        assert self._socket is not None
        longest = self._settings.max_message_bytes
        if len(self._buffer) != longest + 1:
            self._buffer = bytearray(longest + 1)
        view, messages = memoryview(self._buffer), list[bytes]()
        left = AT_ONCE_BYTES
        for _ in range(AT_ONCE):
            try:
                size = self._socket.recv_into(view)
            except OSError:  # nothing more; or an error that an earlier answer of ours would have caused, had we any
                return messages, True
            if size > longest:
                self._losses.dropped("too_long", 1)
            elif size:
                messages.append(bytes(view[:size]))
            left -= size
            if left <= 0:
                break
        return messages, False

    def _put(self, messages: Sequence[bytes]) -> None:
        """Into the inbox; what it has no room for is dropped, and after the first of them before it is parsed."""
        taken = 0
        if self._inbox.has_room(sum(map(len, messages))):
            if self._inbox.put(self._records(messages)):
                return
            while taken < len(messages) and self._inbox.put(self._records([messages[taken]])):  # perhaps a few fit
                taken += 1
        self._losses.dropped("no_room", len(messages) - taken)

    def _records(self, messages: Sequence[bytes]) -> Records:
        return Records(messages, local=self._transport == "unix", defaults=self._served.defaults)

    def _count_dropped_by_kernel(self) -> None:
        assert self._socket is not None
        try:
            (total,) = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))
        except (OSError, struct.error):  # not Linux's own kernel
            return
        if dropped := (total - self._dropped_by_kernel) & 0xFFFF_FFFF:
            self._dropped_by_kernel = total
            self._losses.dropped("receive_queue", dropped)


async def _udp_socket(address: str) -> socket.socket:
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = max(found, key=lambda each: not host and each[0] == socket.AF_INET6)
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6 and not host:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        made.bind(target)
    except BaseException:
        made.close()
        raise
    return made


def _unix_socket(path: str, mode: int) -> socket.socket:
    """A socket that nobody reads any more is replaced, such as that of a killed process; no other file is."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        _remove_abandoned(path)
        made.bind(path)
        os.chmod(path, mode)
    except BaseException:
        made.close()
        raise
    return made


def _remove_abandoned(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
