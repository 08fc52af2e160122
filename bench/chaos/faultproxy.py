"""A TCP proxy that disturbs its links: it cuts them in the middle of a frame, slows, delays or silences them.

It runs an event loop in a thread of its own; its methods may be called from any other thread. As in a real network,
bytes that were in flight when one peer gave up still reach the other one, late. That is how a batch reaches a receiver
after the forwarder has moved on to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHUNK_BYTES = 16 * 1024
CONNECT_SECONDS = 5.0
LAST_BYTES_SECONDS = 0.02
START_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a RST


@dataclass(eq=False)
class _Pair:
    """One connection from a client, and the connection to the target that carries it."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter

    def reset(self) -> None:
        for writer in (self.client, self.target):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class FaultProxy:
    """`with FaultProxy("localhost:9000") as proxy`: connections to `proxy.address` go to the target."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.address = ""
        self.cuts = 0
        """Links that were cut so far."""
        self._delay_seconds = 0.0
        self._bytes_per_second = 0.0
        self._cut_after: dict[str, int] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._server: asyncio.Server | None = None
        self._listening: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise TimeoutError("the fault proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop.set)
        self._thread.join()
        self._loop.close()

    # -- faults ------------------------------------------------------------------------------------------------

    def cut(self, after_bytes: int, *, answers: bool = False) -> None:
        """Reset whichever link carries the byte `after_bytes` from now, towards the target or (`answers`) back."""
        self._call(self._cut_after.__setitem__, "down" if answers else "up", after_bytes)

    def delay(self, seconds: float) -> None:
        """Delay each piece by this long."""
        self._call(setattr, self, "_delay_seconds", seconds)

    def throttle(self, bytes_per_second: float) -> None:
        """Limit the rate of each link and direction."""
        self._call(setattr, self, "_bytes_per_second", bytes_per_second)

    def hold(self) -> None:
        """Half-open: connections stay up and new ones are accepted, but nothing passes."""
        self._call(self._open.clear)

    def release(self) -> None:
        """End of `hold`: the bytes that were held back are sent on."""
        self._call(self._open.set)

    def refuse(self) -> None:
        """Like the address of a host on which nothing listens: its links are reset, and new ones refused."""
        self._call(self._close)

    def listen(self) -> None:
        """End of `refuse`: it listens at the same address again."""
        self._call(self._listen_again)

    def heal(self) -> None:
        """End every fault."""
        self.listen()
        self.delay(0.0)
        self.throttle(0.0)
        self._call(self._cut_after.clear)
        self.release()

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    # -- in the thread -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._open.set()
        await self._listen(0)
        assert self._server is not None
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        if self._listening is not None:
            await self._listening
        self._close()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next round

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    def _listen_again(self) -> None:
        if self._server is None and self._listening is None:
            self._listening = asyncio.create_task(self._listen(int(self.address.rpartition(":")[2])))
            self._listening.add_done_callback(self._listens)

    def _listens(self, _: asyncio.Task[None]) -> None:
        self._listening = None

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep a reference: the loop holds tasks weakly, and nothing else holds one that waits for a silent peer."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open.wait()
            async with asyncio.timeout(CONNECT_SECONDS):
                answers, target = await asyncio.open_connection(*self._target)
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
            return
        pair = _Pair(writer, target)
        pumps = [
            asyncio.create_task(self._pump(reader, target, "up", pair)),
            asyncio.create_task(self._pump(answers, writer, "down", pair)),
        ]
        try:
            await asyncio.wait(pumps)  # each to its own end: one still delivers its bytes after the other has failed
            for end in (writer, target):
                end.close()
        except asyncio.CancelledError:
            for end in (writer, target):
                end.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str, pair: _Pair
    ) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(CHUNK_BYTES):
                await self._weather(len(data))
                if await self._was_cut(data, writer, direction, pair):
                    return
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    async def _weather(self, size: int) -> None:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        if self._bytes_per_second:
            await asyncio.sleep(size / self._bytes_per_second)
        await self._open.wait()

    async def _was_cut(self, data: bytes, writer: asyncio.StreamWriter, direction: str, pair: _Pair) -> bool:
        left = self._cut_after.get(direction)
        if left is None:
            return False
        if left >= len(data):
            self._cut_after[direction] = left - len(data)
            return False
        del self._cut_after[direction]
        self.cuts += 1
        writer.write(data[:left])
        await asyncio.sleep(LAST_BYTES_SECONDS)  # otherwise the reset overtakes the last bytes
        pair.reset()
        return True
