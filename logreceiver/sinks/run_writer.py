"""Stores batches under one producer id, one at a time and each once, through a sink that may not answer.

After anything but a clear acknowledgement the sink is asked how far it has the run. If that is the end of this batch or
of the one before it, the batch is sent again under the same stamp: the sink appends it, or recognises it. Any other
state means that another try could repeat or lose records, so the run ends with `RunLost`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from logreceiver.sinks import Kind, Outcome, RunState, Sink
from streams.errors import Code, SinkUnavailable
from streams.records.batch import SEQUENCES, parse_header, place, stamp

Trouble = Callable[[Code, str], Awaitable[None]]
"""Called after each failure: waits until the next try, or raises to give up."""


class RunLost(SinkUnavailable):
    """The sink's state of a run fits none of the batches sent: whether the last one is stored is unknown."""


class RunWriter:
    """One producer on one partition. `may_forget`: a sink that does not know the producer is believed.

    Such a sink has lost the run or let it expire, and takes any sequence. Batches that it had stored are then not
    recognised, so only a writer that may repeat a batch after that can go on.
    """

    def __init__(
        self,
        sink: Sink,
        topic: str,
        partition: int,
        producer_id: int,
        trouble: Trouble,
        *,
        may_forget: bool = False,
        next_sequence: int = 0,
    ) -> None:
        self._sink = sink
        self._topic = topic
        self._partition = partition
        self._producer_id = producer_id
        self._trouble = trouble
        self._may_forget = may_forget
        self.next_sequence = next_sequence
        """Counts on without wrapping: the number of records stored under this producer."""

    async def store(self, payload: bytes) -> Outcome:
        """Returns once the batch is stored, or refused for good (a code that is not retriable); RunLost otherwise."""
        records = parse_header(payload).record_count
        before: Code | None = None
        while True:
            outcome = await self._produce(payload)
            if outcome.is_stored:
                self.next_sequence += records
                return outcome
            code = outcome.code or Code.UNKNOWN
            if outcome.kind is Kind.REFUSED and not code.retriable:
                return outcome
            await self._trouble(code, outcome.text)
            if code is Code.FENCED or code is before is Code.OUT_OF_ORDER:  # what `ask` says cannot be true
                raise RunLost(code, outcome.text or code.sentence)
            before = code
            await self._check_state(records)

    async def _produce(self, payload: bytes) -> Outcome:
        stamped = stamp(
            payload,
            producer_id=self._producer_id,
            producer_epoch=0,
            base_sequence=self.next_sequence,
            now_ms=int(time.time() * 1000),
        )
        place(stamped, 0)  # a broker refuses a producer's batch with any other offset
        return await self._sink.produce(self._topic, self._partition, memoryview(stamped))

    async def _check_state(self, records: int) -> None:
        """RunLost unless sending the batch again stores it once."""
        stored = await self._ask()
        if stored is None and (self._may_forget or self.next_sequence == 0):
            return
        ends = [end for end in (self.next_sequence - 1, self.next_sequence + records - 1) if end >= 0]
        if stored not in [RunState(0, end % SEQUENCES) for end in ends]:
            expected = " or ".join(str(end % SEQUENCES) for end in ends)
            raise RunLost(Code.OUT_OF_ORDER, f"the sink has {stored} of the run; expected last sequence {expected}")

    async def _ask(self) -> RunState | None:
        while True:
            try:
                return await self._sink.ask(self._topic, self._partition, self._producer_id)
            except SinkUnavailable as error:
                await self._trouble(error.code, str(error))
