"""Each write of a turn is one full batch to the forwarder's batcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.compare.rounds import cuts
from bench.lab.load import Base
from bench.lab.processes import StartFailed
from logfwd.definition import BatchLimits
from logfwd.intake.batcher import Batcher
from logfwd.sources.position import Block

SIZE = 64 * 1024


def test_a_write_is_one_batch_even_to_a_forwarder_that_is_behind(tmp_path: Path) -> None:
    base = Base.generate(tmp_path / "data", 1000, seed=3, record_bytes=577)
    batcher = Batcher(BatchLimits(max_batch_bytes=SIZE, max_record_bytes=8192))
    found, full = list(cuts(base, SIZE)), []
    assert len(found) > 5
    written = base.path.read_bytes()[: base.starts[found[-1][1]]]
    while written:  # as the source reads: as much as a batch may have, then whole lines of it
        end = written.rfind(b"\n", 0, SIZE) + 1
        full += batcher.add(Block(written[:end], read_at_ms=0), now=0.0)
        written = written[end:]
    assert [draft.byte_count for draft in full] == [base.starts[last] - base.starts[first] for first, last in found]


@pytest.mark.parametrize(("records", "record_bytes", "why"), [(20, 577, "do not fill"), (500, 4096, "too long")])
def test_records_that_cannot_fill_batches_are_a_clear_error(
    tmp_path: Path, records: int, record_bytes: int, why: str
) -> None:
    base = Base.generate(tmp_path / "data", records, seed=3, record_bytes=record_bytes)
    with pytest.raises(StartFailed, match=why):
        list(cuts(base, 32 * 1024 if records == 500 else SIZE))
