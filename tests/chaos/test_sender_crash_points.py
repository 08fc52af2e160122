"""A forwarder that dies before any of its commits and sends: afterwards everything is stored once.

It is a real process, stopped before each system call that changes its spool or sends to the receiver. At each the
spool is kept as kill -9 would leave it, and with it the receiver's log twice: as it is at that moment, as if the
receiver died as well, and when the receiver has taken in all that was sent.
"""

from __future__ import annotations

import asyncio
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from logfwd.config import ForwarderConfig
from logfwd.definition import BatchLimits
from logreceiver.sinks.log.sink import read_records
from logreceiver.sinks.settings import LogSink
from tests.support import syscalls
from tests.support.chaos import sampled
from tests.support.crash_points import Files
from tests.support.installation import Installation, acknowledged, eventually, forwarding, lines, running
from tests.support.syscalls import Call

BATCHES, RECORDS_IN_A_BATCH = 12, 5
RECORDS = BATCHES * RECORDS_IN_A_BATCH
SETTLED_SECONDS = 0.01
LIMITS = BatchLimits(max_batch_records=RECORDS_IN_A_BATCH, linger_seconds=0.02)


@pytest.fixture(autouse=True)
def can_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)
    monkeypatch.setattr("logfwd.spool.room.RESERVE_BYTES", 4096)  # many spools are opened here


def files(directory: Path) -> Files:
    """Checkpoints before what they vouch for: the log may grow while it is read."""
    found = sorted((path for path in directory.rglob("*") if path.is_file()), reverse=True)
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in found
        if not path.name.endswith((".reserve", "-shm", ".tmp"))
    }


@dataclass
class Recorder:
    """Keeps each pair of spool and log once, with the call that was about to be made."""

    state: Path
    log: Path
    points: dict[tuple[tuple[str, bytes], ...], tuple[str, Files, Files]] = field(default_factory=dict)
    calls: int = 0

    def at_call(self, call: Call) -> None:
        if call.done or not (call.file.startswith((str(self.state), "socket:")) or not call.file):
            return
        self.calls += 1
        spool = files(self.state)
        self._keep(call, spool, files(self.log))
        self._keep(call, spool, self._settled_log())

    def _settled_log(self) -> Files:
        now, before = files(self.log), None
        while now != before:
            time.sleep(SETTLED_SECONDS)
            now, before = files(self.log), now
        return now

    def _keep(self, call: Call, spool: Files, log: Files) -> None:
        self.points.setdefault((*spool.items(), *log.items()), (f"{call.name} {Path(call.file).name}", spool, log))


def lay_out(content: Files, directory: Path) -> None:
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


async def record(installation: Installation, config: Callable[[str], ForwarderConfig]) -> Recorder:
    """Deliver everything once, stopping the forwarder at every point."""
    recorder = Recorder(installation.directory / "state", installation.directory / "log")
    pickled = installation.directory / "config"
    async with running(msgspec.structs.replace(installation.receiver_config(), ledger=None)) as service:
        pickled.write_bytes(pickle.dumps(config(service.listeners[0].address)))
        argv = [sys.executable, "-m", "tests.support.forwarder_worker", str(pickled), str(RECORDS)]
        assert await asyncio.to_thread(syscalls.watch, argv, recorder.at_call) == 0
    return recorder


async def recover(installation: Installation, directory: Path, config: Callable[[str], ForwarderConfig]) -> int:
    """Start both on what is there and wait until all is acknowledged; returns the resets."""
    sink = LogSink(directory=directory / "log")
    async with running(msgspec.structs.replace(installation.receiver_config(), ledger=None, sink=sink)) as service:
        changed = msgspec.structs.replace(config(service.listeners[0].address), state_dir=directory / "state")
        async with forwarding(changed) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == RECORDS)
            resets: int = forwarder.describe()[0]["resets"]
            return resets


@pytest.mark.slow
async def test_a_forwarder_killed_before_any_commit_or_send_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "site")
    installation.append(*lines(RECORDS))

    def config(address: str) -> ForwarderConfig:
        return installation.forwarder_config(address, installation.stream(batch=LIMITS))

    recorder = await record(installation, config)
    assert installation.stored() == lines(RECORDS)
    assert len(recorder.points) > 50
    for number, (call, spool, log) in sampled(list(enumerate(recorder.points.values()))):
        again = tmp_path / "again"
        lay_out(spool, again / "state")
        lay_out(log, again / "log")
        where = f"point {number} of {len(recorder.points)}, before {call}"
        assert await recover(installation, again, config) == 0, where
        stored = [bytes(record.value or b"").decode() for record in read_records(again / "log", "http")]
        assert stored == lines(RECORDS), where
        shutil.rmtree(again)
    print(f"{recorder.calls} calls, {len(recorder.points)} pairs of spool and log: all stored once")
