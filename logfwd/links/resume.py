"""What to send first after a break, and what an answer means. No I/O, no clock: time is an argument.

The receiver says what the sink has stored of a run (RUN); this decides how to go on so that nothing is lost and
nothing is stored twice. It depends on two facts about Apache Kafka: a restarted broker recognises only the *last*
batch of a producer, so a window must never be sent again oldest first; and what a leader reports may not be replicated
yet, so the last stored batch is sent again, alone: its acknowledgement waits for replication and covers all before it.

    what the sink says                                   what is done
    ───────────────────────────────────────────────────  ──────────────────────────────────────────────
    last sequence = the last acknowledged one            GoOn with the first unacknowledged batch
    last sequence = the end of an unacknowledged batch   Repeat that one alone, then go on after it; if it is refused
                                                         for what it is, GoOn behind it: it is stored, and the
                                                         acknowledgement of a later one covers it; once a later
                                                         run vouches for it (recoveries.py), it is Stored
    lower epoch, or nothing known of the producer        GoOn: nothing is stored under this stamp
    higher epoch                                         Reset with a new producer id: another life of this spool
    another cluster or topic                             Reset with a new producer id
    anything else                                        Reset: next producer epoch, sequence from 0

A reset is the only step that can repeat records. It waits until no copy of an uncertain batch can still be under
way, asks again, and only then is carried out.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from logfwd.spool.rows import Row, Run
from streams.errors import Code
from streams.records.batch import SEQUENCES

LATE_COPY_MARGIN_SECONDS = 30.0
NOT_GRANTED_PATIENCE_SECONDS = 3600.0
REFUSALS_ALONE = 3
REFUSED_SECONDS = 300.0
"""How long a batch has to be refused for its records, while others are stored, before it is set aside."""


class Answer(msgspec.Struct, frozen=True):
    """What a receiver said of a run: where it lives, and the newest stamp stored (epoch −1: none is known)."""

    cluster_id: str
    topic_id: str
    epoch: int
    sequence: int


class GoOn(msgspec.Struct, frozen=True):
    """Send from the first unacknowledged batch, or from the one behind one that is stored and is not taken again."""

    behind: Row | None = None


class Repeat(msgspec.Struct, frozen=True):
    """Send this batch again, alone; its acknowledgement covers everything before it in the run."""

    row: Row


class Stored(msgspec.Struct, frozen=True):
    """This batch and all before it in the run are stored for good, though no answer to them ever came."""

    row: Row


class Wait(msgspec.Struct, frozen=True):
    """Ask again at this time."""

    until: float
    reason: str


class Reset(msgspec.Struct, frozen=True):
    """Start the run's sequence over."""

    reason: str
    new_producer: bool = False


Plan = GoOn | Repeat | Wait | Reset


BODIES = (Code.TOO_LARGE, Code.CORRUPT, Code.INVALID_RECORD)
"""Refusals of a batch for what it is."""


class Remedy(enum.Enum):
    """What to do about the first refused batch of a window."""

    ASK = "ask again at once"
    BACK_OFF = "ask again later"
    SPLIT = "halve the batch"
    DEAD_LETTER = "move the batch aside and reset"


class Refused(msgspec.Struct):
    """A batch that was refused for its records: since when, and how often with nothing else on the wire."""

    since: float
    alone: int = 0


class Recovery:
    """What is remembered of one run between two questions."""

    def __init__(self, *, produce_timeout_seconds: float = 60.0) -> None:
        self.produce_timeout_seconds = produce_timeout_seconds
        """How long a receiver may go on with a batch, whoever still waits for it."""
        self._uncertain_since: float | None = None
        self._answer: Answer | None = None
        self._refused_after: Answer | None = None
        self._refused_twice = False
        self._refusals: dict[int, Refused] = {}
        """By row id."""
        self._stored: Row | None = None
        """The batch that the sink's last answer named as its newest, though it is not acknowledged."""
        self._passed: int | None = None
        """Row id of a stored batch that is not taken again: what is behind it is sent instead."""
        self._vouched: int | None = None
        """Row id of a batch that was passed over and that another run vouched for since."""
        self._not_granted_since: float | None = None
        self._hole = False

    # -- what happened -----------------------------------------------------------------------------------------

    def uncertain(self, now: float) -> None:
        """A batch was sent and its fate is unknown: link lost, time limit, or an earlier life of this process."""
        self._uncertain_since = now

    def acknowledged(self) -> None:
        """A batch of the run was stored."""
        self._refused_after, self._refused_twice = None, False
        self._stored = self._passed = None
        self._refusals.clear()

    def dead_lettered(self) -> None:
        """A stamped batch was taken out of the run: the sequence has a hole."""
        self._hole = True

    def passes_over(self, row: Row) -> bool:
        """True if a batch that cannot be sent is stored already: from now on the one behind it is sent instead."""
        if self._stored is not row:
            return False
        self._passed, self._vouched = row.id, None
        return True

    @property
    def needs_voucher(self) -> int | None:
        """Row id of the batch that is passed over and that nothing vouches for yet."""
        return None if self._passed == self._vouched else self._passed

    def vouched_for(self) -> None:
        """A batch of a later run was acknowledged that went to the same partition after the one passed over."""
        self._vouched = self._passed

    def try_again(self) -> None:
        """Nothing behind the batch that is passed over can vouch for it: maybe it is taken again by now."""
        self._passed = None

    def refused(
        self,
        row: Row,
        code: Code,
        *,
        permanent: bool,
        uncertain: bool,
        alone: bool,
        now: float,
        stored_meanwhile: int = 0,
    ) -> Remedy:
        """The first batch of the window that was not acknowledged, and why."""
        if uncertain:
            self.uncertain(now)
            return Remedy.BACK_OFF
        if code in BODIES and self.passes_over(row):
            return Remedy.ASK
        if code in (Code.OUT_OF_ORDER, Code.FENCED):
            self._refused_twice = self._answer is not None and self._answer == self._refused_after
            self._refused_after = self._answer
            return Remedy.ASK
        if code is Code.TOO_LARGE and permanent:
            return Remedy.SPLIT if row.record_count > 1 else Remedy.DEAD_LETTER
        if code is Code.CORRUPT and permanent:
            return Remedy.DEAD_LETTER
        if code is Code.INVALID_RECORD:
            refused = self._refusals.setdefault(row.id, Refused(now))
            refused.alone += alone
            if self.is_stuck(row, now) and stored_meanwhile > 0:
                return Remedy.DEAD_LETTER
        return Remedy.BACK_OFF

    def is_stuck(self, row: Row, now: float) -> bool:
        """True if a batch was refused for its records so often, and for so long, that it may be to blame."""
        refused = self._refusals.get(row.id)
        return refused is not None and refused.alone >= REFUSALS_ALONE and now - refused.since >= REFUSED_SECONDS

    def must_send_alone(self, row: Row) -> bool:
        """A batch that was refused for its records is tried with nothing else in flight."""
        return row.id in self._refusals

    def not_granted(self, now: float) -> Plan:
        """The receiver does not honour the run's grant: another may; after an hour a new producer id is requested."""
        if self._not_granted_since is None:
            self._not_granted_since = now
        if now - self._not_granted_since < NOT_GRANTED_PATIENCE_SECONDS:
            return Wait(now, "grant not honoured")
        return self._reset("not_granted", now, new_producer=True)

    # -- what to do --------------------------------------------------------------------------------------------

    def plan(self, run: Run, unacknowledged: Sequence[Row], answer: Answer, now: float) -> Plan | Stored:
        """How to go on with a granted run, given its stamped and unacknowledged rows in order."""
        self._not_granted_since = None
        self._answer, self._stored = answer, None
        passed, self._passed = self._passed, None  # unless the answer still names that batch
        if (answer.cluster_id, answer.topic_id) != (run.cluster_id, run.topic_id):
            return self._reset("topic_replaced", now, new_producer=True)
        if answer.epoch > run.producer_epoch:
            return self._reset("fenced", now, new_producer=True)
        if self._hole:
            return self._reset("dead_letter", now)
        if self._refused_twice:
            return self._reset("out_of_order", now)
        if answer.epoch < run.producer_epoch:
            return GoOn()
        if same_sequence(answer.sequence, run.last_acknowledged_sequence):
            return GoOn()
        for row in unacknowledged:
            if same_sequence(answer.sequence, row.last_sequence):
                self._stored = row
                if row.id != passed:
                    return Repeat(row)
                self._passed = passed
                return Stored(row) if passed == self._vouched else GoOn(behind=row)
        return self._reset("unknown_sequence", now)

    def _reset(self, reason: str, now: float, *, new_producer: bool = False) -> Plan:
        if self._uncertain_since is not None:
            until = self._uncertain_since + self.produce_timeout_seconds + LATE_COPY_MARGIN_SECONDS
            if now < until:
                return Wait(until, f"reset ({reason}) waits for late copies")
        return Reset(reason, new_producer)

    def was_reset(self) -> None:
        """A reset was committed: all that was remembered belongs to the old sequence."""
        self._answer = self._refused_after = self._stored = self._passed = None
        self._refused_twice = self._hole = False
        self._refusals.clear()
        self._uncertain_since = None


def same_sequence(stored: int, ours: int) -> bool:
    """Equality of sequences as Kafka stores them; −1 (nothing) is equal to no sequence."""
    return stored >= 0 and ours >= 0 and stored == ours % SEQUENCES
