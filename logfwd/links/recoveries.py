"""What is remembered of a stream's runs between links, and which of them is to be asked for next. No I/O.

Runs are sent one after the other, with one exception. The last batch of a run may be stored, its acknowledgement lost,
and the topic may not take it again, as when its limit was lowered meanwhile. That it is stored is only what one leader
says, until that is replicated. Then the next run's first batch vouches for it, as it goes to the same partition:

    1  the sink says that the batch is stored
    2  a batch of the next run is sent, and acknowledged: it is replicated, with all that stands before it
    3  the sink still says that the batch is stored; as it was not sent between 1 and 3, it stands before the other

What vouched is not taken out of the backlog for that: its own run is asked for in its turn, and its acknowledgement
repeated.
"""

from __future__ import annotations

from itertools import dropwhile, islice

from logfwd.links.resume import Answer, GoOn, Plan, Recovery, Repeat, Stored, Wait
from logfwd.spool.backlog import Backlog
from logfwd.spool.rows import Row, Run


class Recoveries:
    """One stream's. They outlive links: a refusal on one link counts on the next."""

    def __init__(self, backlog: Backlog, *, produce_seconds: float) -> None:
        self._backlog = backlog
        self._produce_seconds = produce_seconds
        """How long a batch may be under way to a sink, by the slowest receiver so far."""
        self._by_number: dict[int, Recovery] = {}

    def of(self, run: Run) -> Recovery:
        """What is remembered of a run."""
        recovery = self._by_number.get(run.number)
        if recovery is None:
            recovery = self._by_number[run.number] = Recovery(produce_timeout_seconds=self._produce_seconds)
        return recovery

    def of_row(self, row: Row) -> Recovery:
        """What is remembered of a batch's run."""
        return self.of(self._backlog.runs[row.run])

    def receiver_takes(self, seconds: float) -> None:
        """A receiver may go on with a batch for so long, though the link that brought it has ended."""
        self._produce_seconds = max(self._produce_seconds, seconds)
        for recovery in self._by_number.values():
            recovery.produce_timeout_seconds = self._produce_seconds

    def next_run(self) -> Run | None:
        """The run to ask for: the first that waits, or the one behind it that is to vouch for it."""
        head = self._backlog.head_run()
        return head if head is None else self._voucher_of(head) or head

    def _voucher_of(self, head: Run) -> Run | None:
        if (passed := self.of(head).needs_voucher) is None:
            return None
        from_there = dropwhile(lambda row: row.id != passed, self._backlog.rows)
        row = next(islice(from_there, 1, None), None)
        run = head if row is None else self._backlog.runs[row.run]
        return None if run is head or (run.granted and run.place != head.place) else run

    def plan(self, run: Run, answer: Answer, now: float) -> Plan | Stored:
        """How to go on with a granted run that was asked for."""
        return self._in_turn(run, self.of(run).plan(run, list(self._backlog.stamped(run)), answer, now), now)

    def begin(self, run: Run, now: float) -> Plan | Stored:
        """How to go on with a run that was granted just now."""
        return self._in_turn(run, GoOn(), now)

    def _in_turn(self, run: Run, plan: Plan | Stored, now: float) -> Plan | Stored:
        """The plan, or, of a run that is to vouch, the first batch that was not stored when the other one was."""
        head = self._backlog.head_run()
        if head is None or head is run or not isinstance(plan, GoOn | Repeat):
            return plan
        if run.place != head.place:
            return Wait(now, "the next run's partition is another one")
        if isinstance(plan, Repeat):
            return GoOn(behind=plan.row)
        return GoOn(behind=plan.behind or self._passed_over(head))

    def _passed_over(self, run: Run) -> Row | None:
        row_id = self.of(run).needs_voucher
        return next((row for row in self._backlog.rows if row.id == row_id), None)

    def try_again(self) -> None:
        """Nothing vouches for a batch: maybe the topic takes it again by now."""
        if (head := self._backlog.head_run()) is not None:
            self.of(head).try_again()

    def acknowledged(self, row: Row) -> bool:
        """False if a batch's acknowledgement only vouches for those before it."""
        head = self._backlog.head_run()
        assert head is not None
        if row.run != head.number:
            self.of(head).vouched_for()
            return False
        self.of(head).acknowledged()
        return True
