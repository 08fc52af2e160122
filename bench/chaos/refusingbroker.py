"""A proxy before a real Kafka that answers Produce requests in its place: with any of Kafka's errors, whether the batch
reached the broker or not.

It understands of Kafka's protocol what that takes: the frames, Produce in version 8 (kafka/produce.py), and where an
answer to Metadata names the broker, which is replaced by the proxy so that every connection comes this way.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.addresses import split_address

START_SECONDS = 10.0
PRODUCE, METADATA = 0, 3
_PLACE = struct.Struct(">hhi")
"""How a request begins: kind, version, number of the question."""


class Verdict(NamedTuple):
    """What a batch is answered with in the broker's place, and whether the broker gets it nevertheless.

    It gets it only where all batches of a request are refused.
    """

    error_code: int
    stored: bool = False


class Batch(NamedTuple):
    """A batch in a request."""

    topic: str
    partition: int
    payload: bytes


Judge = Callable[[Batch], Verdict | None]
"""None: the broker itself answers."""


@dataclass
class RefusingBroker:
    """What `refusing` gives: where it is, and what came by. `judge` may be replaced at any time."""

    judge: Judge = lambda _: None
    address: str = ""
    refused: list[tuple[float, Batch]] = field(default_factory=list)
    """When, by the loop's clock, and what."""


@contextlib.asynccontextmanager
async def refusing(broker: str) -> AsyncIterator[RefusingBroker]:
    """A proxy before the broker at an address of IPv4."""
    proxy, serving = RefusingBroker(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await _Connection(proxy, broker).serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in [*serving]:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class RefusingThread:
    """`with RefusingThread(broker) as proxy`: `refusing` in a thread of its own; `judge` may be set from any other."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._started, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def __enter__(self) -> RefusingBroker:
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise TimeoutError("the proxy before the broker did not start")
        return self._proxy

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        async with refusing(self._broker) as self._proxy:
            self._started.set()
            await self._stop.wait()


class _Connection:
    """One client's connection, and the one to the broker that carries it."""

    def __init__(self, proxy: RefusingBroker, broker: str) -> None:
        self._proxy, self._broker = proxy, broker
        self._kinds: dict[int, int] = {}
        """Question → kind of request."""
        self._added: dict[int, list[tuple[Batch, int]]] = {}
        """Question → what its answer says beside what the broker says."""
        self._hidden: dict[int, int] = {}
        """Question → of how many batches the broker's own answer is not passed on."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, target = await asyncio.open_connection(*split_address(self._broker))
        back = asyncio.create_task(self._pass_back(answers, writer))
        try:
            while True:
                frame = await _frame(reader)
                for_broker, answer = self._asked(frame)
                if answer is not None:
                    _send(writer, answer)
                if for_broker is not None:
                    _send(target, for_broker)
        finally:
            target.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    def _asked(self, frame: bytes) -> tuple[bytes | None, bytes | None]:
        """What the broker gets of a request, and what is answered without it."""
        kind, version, question = _PLACE.unpack_from(frame)
        if kind != PRODUCE:
            self._kinds[question] = kind
            return frame, None
        assert version == 8
        head, batches = _parse(frame)
        judged = [(batch, self._proxy.judge(batch)) for batch in batches]
        refused = [(batch, verdict) for batch, verdict in judged if verdict is not None]
        now = asyncio.get_running_loop().time()
        self._proxy.refused += [(now, batch) for batch, _ in refused]
        if not refused:
            self._kinds[question] = kind
            return frame, None
        added = [(batch, verdict.error_code) for batch, verdict in refused]
        kept = [batch for batch, verdict in judged if verdict is None]
        hidden = [batch for batch, verdict in refused if verdict.stored and not kept]
        if not kept and not hidden:
            return None, struct.pack(">i", question) + _answer(added)
        self._kinds[question], self._added[question], self._hidden[question] = kind, added, len(hidden)
        return head + _rows([*hidden, *kept]), None

    async def _pass_back(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                frame = await _frame(answers)
                (question,) = struct.unpack_from(">i", frame)
                if self._kinds.pop(question) == METADATA:
                    frame = frame.replace(_compact(self._broker), _compact(self._proxy.address))
                if question in self._added:
                    frame = frame[:4] + _merged(frame[4:], self._hidden.pop(question), self._added.pop(question))
                _send(writer, frame)
        except (OSError, EOFError):
            writer.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)


def _compact(address: str) -> bytes:
    """Host and port as an answer to Metadata has them; as long as those of another port of this host."""
    host, port = split_address(address)
    return bytes([len(host) + 1]) + host.encode() + struct.pack(">i", port)


# -- Produce, version 8 ------------------------------------------------------------------------------------------


def _parse(frame: bytes) -> tuple[bytes, list[Batch]]:
    """What comes before the topics, and the batches."""
    at = _PLACE.size
    for _ in range(2):  # client id, transactional id
        (size,) = struct.unpack_from(">h", frame, at)
        at += 2 + max(size, 0)
    at += struct.calcsize(">hi")  # acks, time limit
    head, batches = frame[:at], []
    (topics,) = struct.unpack_from(">i", frame, at)
    at += 4
    for _ in range(topics):
        (size,) = struct.unpack_from(">h", frame, at)
        topic = frame[at + 2 : at + 2 + size].decode()
        (partitions,) = struct.unpack_from(">i", frame, at + 2 + size)
        at += 2 + size + 4
        for _ in range(partitions):
            partition, length = struct.unpack_from(">ii", frame, at)
            batches.append(Batch(topic, partition, frame[at + 8 : at + 8 + length]))
            at += 8 + length
    return head, batches


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _rows(batches: list[Batch]) -> bytes:
    """The topics of a request, one for each batch."""
    rows = [
        _string(batch.topic) + struct.pack(">iii", 1, batch.partition, len(batch.payload)) + batch.payload
        for batch in batches
    ]
    return struct.pack(">i", len(rows)) + b"".join(rows)


def _refusals(added: list[tuple[Batch, int]]) -> bytes:
    """Topics of an answer: no offset, no faults of single records, no text."""
    rows = [
        _string(batch.topic) + struct.pack(">iihqqqih", 1, batch.partition, code, -1, -1, -1, 0, -1)
        for batch, code in added
    ]
    return b"".join(rows)


def _answer(added: list[tuple[Batch, int]]) -> bytes:
    return struct.pack(">i", len(added)) + _refusals(added) + struct.pack(">i", 0)


def _merged(body: bytes, hidden: int, added: list[tuple[Batch, int]]) -> bytes:
    """The broker's answer with what it does not say; without what it says of hidden batches, which come alone."""
    (topics,) = struct.unpack_from(">i", body)
    kept = b"" if hidden else body[4:-4]
    return struct.pack(">i", topics - hidden + len(added)) + kept + _refusals(added) + body[-4:]
