"""The backlog alone: which rows are stamped, and what a reset does to a run."""

from __future__ import annotations

import pytest

from logfwd.spool.backlog import MAX_PRODUCER_EPOCH, STAMP_STEP, Backlog
from logfwd.spool.rows import Run
from streams.records.batch import Packed
from tests.support.model_disk import ModelDisk


@pytest.fixture
def disk() -> ModelDisk:
    return ModelDisk()


@pytest.fixture
def backlog(disk: ModelDisk) -> Backlog:
    """A backlog of three batches in a granted run, all of them stamped."""
    backlog = disk.backlog("http")
    accept(backlog, disk, 3)
    run = backlog.head_run()
    assert run is not None
    backlog.grant(run, Run(1, "cluster", "topic", "id", 0, 1000, grant=b"grant"), disk)
    backlog.stamp(run, disk)
    return backlog


def accept(backlog: Backlog, disk: ModelDisk, batches: int) -> None:
    for _ in range(batches):
        blob = backlog.blobs.add(b"payload", disk)
        backlog.accept([Packed(b"payload", 2, 7)], [blob], 0, 1.0, disk)


def test_no_more_batches_are_stamped_than_may_be_unacknowledged(backlog: Backlog, disk: ModelDisk) -> None:
    accept(backlog, disk, 97)
    stamped = [row for row in backlog.rows if row.base_sequence is not None]
    assert stamped == list(backlog.rows)[:STAMP_STEP]
    assert backlog.stamp(backlog.runs[1], disk) == []
    backlog.acknowledge(backlog.rows[9], disk)
    assert len(backlog.stamp(backlog.runs[1], disk)) == 10


def test_after_a_reset_batches_are_sealed_into_another_run(backlog: Backlog, disk: ModelDisk) -> None:
    backlog.reset(backlog.runs[1], disk, new_producer=False)
    accept(backlog, disk, 1)
    assert [row.run for row in backlog.rows] == [1, 1, 1, 2]


def test_when_epochs_run_out_a_reset_takes_a_new_producer(backlog: Backlog, disk: ModelDisk) -> None:
    run = backlog.runs[1]
    run.producer_epoch = MAX_PRODUCER_EPOCH - 1
    backlog.reset(run, disk, new_producer=False)
    assert (run.producer_id, run.producer_epoch) == (1000, MAX_PRODUCER_EPOCH)
    backlog.reset(run, disk, new_producer=False)
    assert (run.producer_id, run.producer_epoch, run.grant) == (-1, 0, b"")
    assert [row.base_sequence for row in backlog.rows] == [None] * 3


def test_a_spool_stays_in_the_partition_of_its_newest_grant_even_if_it_is_the_first(
    backlog: Backlog, disk: ModelDisk
) -> None:
    assert backlog.partition() == 0
    assert disk.backlog("other").partition() == -1
