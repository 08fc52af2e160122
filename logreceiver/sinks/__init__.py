"""What a sink promises. `kafka` and `log` keep the same promise; one contract suite tests both.

A sink stores record batches unchanged. It recognises a repeat by (producer id, producer epoch, base sequence) as Apache
Kafka does: only the last batches of a producer are known, a repeat is answered with its first offset and nothing is
appended; anything else that is not next in sequence is OUT_OF_ORDER. What it reports as stored survives a kill.

A new sink is a section in settings.py, a module, a row in make.py and in the contract suite
(tests/logreceiver/sinks/test_sink_contract.py), and its keys in docs/configuration.md.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import ClassVar, Protocol

import msgspec

from logreceiver.posture import SinkConnection
from streams.errors import Code
from streams.security.endpoint import Facts
from streams.security.modes import Mode


class TopicInfo(msgspec.Struct, frozen=True):
    """What a link must know about its topic."""

    name: str
    topic_id: str
    partition_count: int
    max_message_bytes: int


class RunState(msgspec.Struct, frozen=True):
    """The newest batch that a partition knows of a producer id."""

    producer_epoch: int
    last_sequence: int


class Held(msgspec.Struct, frozen=True):
    """Which offsets of a partition can be read."""

    begins_at: int = 0
    """What is before it was deleted as too old, or too much."""
    lacking: tuple[tuple[int, int], ...] = ()
    """Damage behind that: first offset, and the one after the last, of records that were stored."""


class Kind(enum.Enum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"


class Outcome(msgspec.Struct, frozen=True):
    """The answer to one batch. STORED and DUPLICATE may be acknowledged; REFUSED is certainly not appended."""

    kind: Kind
    base_offset: int = -1
    code: Code | None = None
    text: str = ""

    @property
    def is_stored(self) -> bool:
        """True if the batch is durable, whether it was appended now or before."""
        return self.kind is Kind.STORED or self.kind is Kind.DUPLICATE

    @classmethod
    def refused(cls, code: Code, text: str = "") -> Outcome:
        return cls(Kind.REFUSED, code=code, text=text)

    @classmethod
    def uncertain(cls, code: Code, text: str = "") -> Outcome:
        return cls(Kind.UNCERTAIN, code=code, text=text)


class Sink(Protocol):
    """Stores batches. Every method but `close` may raise SinkUnavailable."""

    name: str

    @property
    def cluster_id(self) -> str:
        """Names the cluster as long as its data lives; empty until it was reached."""

    async def start(self) -> None:
        """Open, check, and become ready; raises ConfigError for faults that an operator must mend."""

    async def close(self) -> None:
        """Finish what is under way, then release everything."""

    def health(self) -> Mapping[str, str]:
        """What is wrong now, by topic or part; empty when all is well."""

    async def topic(self, name: str) -> TopicInfo:
        """Facts about a topic; creates it where the sink is configured to."""

    async def find(self, name: str) -> TopicInfo | None:
        """The same without creating anything; None for a topic that `topic` would create."""

    async def new_producer_id(self) -> int:
        """A producer id that was never handed out before."""

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        """What is stored of a producer; None if nothing is known."""

    async def produce(self, topic: str, partition: int, batch: memoryview) -> Outcome:
        """Store one stamped batch, durably. Returns every answer as an outcome instead of raising; never retries."""


class SinkWitness(Protocol):
    """Counts a sink's handshakes and connections with its servers; knows when the certificate shown to them expires."""

    def complete(self, mode: Mode, facts: Facts) -> None: ...

    def failed(self, mode: Mode, reason: str) -> None: ...

    def opened(self, facts: Facts, opened_at: float) -> SinkConnection: ...

    def closed(self, connection: SinkConnection) -> None: ...

    def own_certificate(self, expires: datetime.datetime, *, user: str) -> None: ...

    def forget_certificates(self, users: Iterable[str]) -> None: ...


class Reader(Protocol):
    """Reads a sink while receivers write to it; creates nothing and takes no lock."""

    asking_is_cheap: ClassVar[bool]
    """False if `ask` reads all batches of a partition, so that it is worth avoiding."""

    async def start(self) -> None:
        """Connect, where that is needed."""

    async def close(self) -> None:
        """Release everything."""

    def read_all(self, topic: str) -> AsyncIterator[bytes]:
        """The values that are in a topic now. SinkUnavailable if it does not exist or cannot be read."""

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        """What is stored of a producer; None if nothing is known."""

    async def held(self, topic: str, partition: int) -> Held:
        """What can be read, as far as the sink is read from files; a broker is believed."""
