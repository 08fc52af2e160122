"""The rules of exactly-once delivery against a simulated broker: any order of faults, each record stored once.

The world: a forwarder (backlog, recovery, a disk that loses what was not committed), a receiver that produces one
batch at a time, a broker that restarts, and copies of batches that arrive late.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from logfwd.links.resume import Answer, GoOn, Recovery, Remedy, Repeat, Reset, Wait
from logfwd.spool.backlog import Backlog
from logfwd.spool.beyond import Segment
from logfwd.spool.rows import Row, Run
from streams.errors import Code
from streams.records.batch import Packed
from tests.support import window
from tests.support.model_broker import ModelBroker, Produce
from tests.support.model_disk import ModelDisk

STREAM = "http"
WINDOW = 5


def packed(records: tuple[int, ...]) -> Packed:
    payload = ",".join(map(str, records)).encode()
    return Packed(payload, len(records), len(payload))


@dataclass
class World:
    """One forwarder, one receiver, one partition, and time."""

    dice: random.Random
    broker: ModelBroker = field(default_factory=ModelBroker)
    disk: ModelDisk = field(default_factory=ModelDisk)
    asked: Segment | None = None
    now: float = 1000.0
    produced: int = 0
    late: list[tuple[float, Produce]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.boot()

    def boot(self) -> None:
        self.disk.crash()
        self.produced = self.disk.position
        self.backlog: Backlog = self.disk.backlog(STREAM)
        self.asked = None
        self.recoveries: dict[int, Recovery] = {}
        for run in self.backlog.runs.values():
            if any(True for _ in self.backlog.stamped(run)):
                self.recovery(run).uncertain(self.now)
        self.hang_up()

    def recovery(self, run: Run) -> Recovery:
        return self.recoveries.setdefault(run.number, Recovery(produce_timeout_seconds=60))

    # -- the forwarder -------------------------------------------------------------------------------------------

    def seal(self) -> None:
        records = tuple(range(self.produced, self.produced + self.dice.randint(1, 4)))
        batch = packed(records)
        blob = self.backlog.blobs.add(batch.payload, self.disk)
        self.backlog.accept([batch], [blob], 0, self.now, self.disk)
        self.produced += len(records)
        self.disk.put_position(self.produced)
        self.disk.commit()

    def hang_up(self) -> None:
        """The link is gone: what was in flight may be stored, now, later, or never."""
        for row, batch in getattr(self, "in_flight", []):
            if row.run in self.recoveries:
                self.recoveries[row.run].uncertain(self.now)
            if self.dice.random() < 0.5 and self.broker.produce(batch) is None:
                continue  # stored, and its acknowledgement lost
            if self.dice.random() < 0.7:
                self.late.append((self.now + self.dice.uniform(0, 60), batch))
            break  # the receiver has one produce under way; it takes no other of a dead link
        self.in_flight: list[tuple[Row, Produce]] = []
        self.run: Run | None = None
        self.alone = False

    def payload(self, row: Row) -> tuple[int, ...]:
        return tuple(map(int, self.disk.blobs[row.blob].split(b",")))

    def open_run(self) -> None:
        run = self.backlog.head_run()
        if run is None or self.in_flight:
            return
        if not run.granted:
            granted = Run(run.number, "c", "t", "id", 0, self.broker.new_producer_id(), grant=b"g")
            self.backlog.grant(run, granted, self.disk)
            self.disk.commit()
            self.run = run
            return
        answer = Answer("c", "id", *self.broker.ask(run.producer_id))
        plan = self.recovery(run).plan(run, list(self.backlog.stamped(run)), answer, self.now)
        match plan:
            case GoOn():
                self.run = run
            case Repeat(row):
                self.run, self.alone = run, True
                self.put_on_wire(row, run)
            case Wait(until):
                self.pass_time(max(until - self.now, 0.1))
            case Reset(_, new_producer):
                self.backlog.reset(run, self.disk, new_producer=new_producer)
                self.disk.commit()
                self.recovery(run).was_reset()

    def put_on_wire(self, row: Row, run: Run) -> None:
        assert row.base_sequence is not None
        self.in_flight.append(
            (row, Produce(run.producer_id, run.producer_epoch, row.base_sequence % (1 << 31), self.payload(row)))
        )

    def send(self) -> None:
        if self.run is None or self.alone or len(self.in_flight) >= WINDOW:
            return
        rows, count = self.backlog.rows, len(self.in_flight)
        if count >= len(rows) or rows[count].run != self.run.number:
            if not self.in_flight and self.backlog.head_run() is not self.run:
                self.run = None
            return
        if rows[count].base_sequence is None:
            self.backlog.stamp(self.run, self.disk)
            self.disk.commit()
        self.put_on_wire(rows[count], self.run)

    def answer(self) -> None:
        """The receiver produces the first batch in flight and answers; a refusal answers the whole window."""
        if not self.in_flight:
            return
        row, batch = self.in_flight[0]
        code = self.broker.produce(batch)
        if code is None:
            self.in_flight.pop(0)
            self.alone = False
            self.recovery(self.backlog.runs[row.run]).acknowledged()
            self.backlog.acknowledge(row, self.disk)  # rides along: not committed here
            return
        remedy = self.recovery(self.backlog.runs[row.run]).refused(
            row, code, permanent=False, uncertain=False, alone=False, now=self.now
        )
        assert remedy is Remedy.ASK
        self.in_flight, self.run, self.alone = [], None, False

    def read_on(self) -> None:
        """Ask for the next batches, or get what was asked for."""
        if self.asked is None:
            self.asked = self.backlog.next_segment()
        else:
            segment, self.asked = self.asked, None
            self.backlog.take(segment, self.disk.read(STREAM, segment))

    # -- the world -----------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for when, batch in sorted(self.late, key=lambda item: item[0]):
            if when <= self.now:
                self.broker.produce(batch)
                self.late.remove((when, batch))

    def drain(self) -> None:
        for _ in range(100_000):
            if not self.backlog.waiting_batches:
                return
            self.read_on()
            if self.run is None:
                self.open_run()
            self.send()
            self.answer()
        raise AssertionError("does not drain")

    def step(self) -> None:
        actions = [self.seal] * 4 + [self.send] * 6 + [self.answer] * 6 + [self.open_run] * 3
        actions += [self.read_on] * 2 + [self.hang_up, self.boot, self.broker.restart, self.disk.commit]
        if self.run is None:
            actions.append(self.open_run)
        else:
            actions = [action for action in actions if action != self.open_run]
        self.dice.choice(actions)()
        self.pass_time(self.dice.choice([0.0, 0.01, 1.0, 20.0]))


@pytest.mark.parametrize("seed", range(400))
def test_any_order_of_cuts_crashes_and_restarts_stores_each_record_once_in_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the worlds keep only a few batches in memory."""
    world = World(random.Random(seed))
    if seed % 2:
        world.disk.window = 4
        window.small(monkeypatch, world.disk.window)
    for _ in range(300):
        world.step()
    world.drain()
    world.pass_time(1000)
    assert world.broker.log == list(range(world.produced))
    assert world.backlog.totals.resets == 0
    assert world.disk.totals[STREAM].dead_lettered == 0


def test_a_model_that_resends_its_window_oldest_first_would_be_caught() -> None:
    """The oracle can fail: without the question, a restarted broker makes repeats or a stuck stream."""
    broker = ModelBroker()
    batches = [Produce(1, 0, sequence, (sequence,)) for sequence in range(3)]
    assert [broker.produce(batch) for batch in batches] == [None, None, None]
    broker.restart()
    assert broker.produce(batches[0]) is Code.OUT_OF_ORDER
    assert broker.produce(batches[2]) is None
    assert broker.log == [0, 1, 2]


def test_a_producer_that_the_broker_forgot_goes_on_where_it_was() -> None:
    world = World(random.Random(7))
    for _ in range(6):
        world.seal()
    world.open_run()
    for _ in range(3):
        world.send()
        world.answer()
    world.hang_up()
    run = world.backlog.head_run()
    assert run is not None
    world.broker.forget(run.producer_id)
    world.drain()
    assert world.broker.log == list(range(world.produced))


def test_a_lost_tail_of_the_log_leads_to_a_reset_that_waits_for_late_copies() -> None:
    world = World(random.Random(3))
    for _ in range(6):
        world.seal()
    world.open_run()
    for _ in range(4):
        world.send()
    world.answer()
    world.answer()
    world.hang_up()
    run = world.backlog.head_run()
    assert run is not None
    known = world.broker.producers[run.producer_id].recent
    known.pop()  # an unclean election lost the last acknowledged batch
    before = world.now
    world.drain()
    assert world.backlog.totals.resets == 1
    assert world.now - before >= 60
    assert world.broker.log[-1] == world.produced - 1
    assert set(world.broker.log) == set(range(world.produced))


def test_a_hole_left_by_a_dead_letter_is_closed_by_a_reset_that_repeats_nothing() -> None:
    world = World(random.Random(5))
    for _ in range(5):
        world.seal()
    world.open_run()
    for _ in range(3):
        world.send()
    world.answer()
    row, batch = world.in_flight[0]
    world.in_flight.clear()
    world.run = None
    world.backlog.dead_letter(row, "too_large", "", world.disk)
    world.disk.commit()
    world.recovery(world.backlog.runs[row.run]).dead_lettered()
    world.drain()
    assert world.broker.log == [record for record in range(world.produced) if record not in batch.records]
    assert world.backlog.totals.resets == 1


def test_halves_take_the_place_and_the_sequences_of_the_whole() -> None:
    world = World(random.Random(11))
    for _ in range(4):
        world.seal()
    world.open_run()
    world.send()
    world.answer()
    world.send()
    row, batch = world.in_flight.pop()
    while row.record_count < 2:
        world.in_flight.append((row, batch))
        world.answer()
        world.send()
        row, batch = world.in_flight.pop()
    middle = len(batch.records) // 2
    halves = packed(batch.records[:middle]), packed(batch.records[middle:])
    world.backlog.split(row, halves, world.disk)
    world.disk.commit()
    world.boot()
    world.drain()
    assert world.broker.log == list(range(world.produced))
    assert world.backlog.totals.resets == 0
