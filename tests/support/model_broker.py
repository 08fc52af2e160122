"""A broker's partition as exactly-once.md says a real Apache Kafka answers; no I/O. Records are plain numbers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from streams.errors import Code

MODULUS = 1 << 31


@dataclass(frozen=True)
class Produce:
    """A stamped batch on its way to the partition."""

    producer_id: int
    epoch: int
    base_sequence: int
    records: tuple[int, ...]

    @property
    def last_sequence(self) -> int:
        return (self.base_sequence + len(self.records) - 1) % MODULUS


@dataclass
class Producer:
    """What a broker remembers of a producer id."""

    epoch: int
    recent: deque[Produce] = field(default_factory=lambda: deque(maxlen=5))


@dataclass
class ModelBroker:
    """One partition. `produce` gives None when the batch is stored or recognised, or the code of the refusal."""

    log: list[int] = field(default_factory=list)
    producers: dict[int, Producer] = field(default_factory=dict)
    next_producer_id: int = 1000

    def new_producer_id(self) -> int:
        self.next_producer_id += 1
        return self.next_producer_id

    def produce(self, batch: Produce) -> Code | None:
        known = self.producers.get(batch.producer_id)
        if known is not None:
            if batch.epoch < known.epoch:
                return Code.FENCED
            if batch.epoch > known.epoch and batch.base_sequence != 0:
                return Code.OUT_OF_ORDER
            if batch.epoch == known.epoch:
                if any(
                    (b.base_sequence, b.last_sequence) == (batch.base_sequence, batch.last_sequence)
                    for b in known.recent
                ):
                    return None
                if batch.base_sequence != (known.recent[-1].last_sequence + 1) % MODULUS:
                    return Code.OUT_OF_ORDER
        if known is None or batch.epoch > known.epoch:
            known = self.producers[batch.producer_id] = Producer(batch.epoch)
        known.recent.append(batch)
        self.log.extend(batch.records)
        return None

    def ask(self, producer_id: int) -> tuple[int, int]:
        known = self.producers.get(producer_id)
        return (-1, -1) if known is None else (known.epoch, known.recent[-1].last_sequence)

    def restart(self) -> None:
        """A restarted broker remembers only the last batch of each producer."""
        for producer in self.producers.values():
            while len(producer.recent) > 1:
                producer.recent.popleft()

    def forget(self, producer_id: int) -> None:
        """The producer id expired."""
        self.producers.pop(producer_id, None)
