"""Full disks under a forwarder's spool and a receiver's log: reported clearly, nothing lost, nothing stored twice."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.lab.feeder import numbered_lines
from bench.lab.oracle import Finding, judge
from bench.lab.site import Program, Site
from logreceiver.sinks.log.sink import read_records
from streams.telemetry.client import NotAnswered
from tests.support.impatient import make_impatient
from tests.support.patience import PATIENCE_SECONDS

DISK_MB = 80
RECORDS = 120_000
"""About 70 MB, sent uncompressed: half of it is more than a spool on a small disk takes."""
STREAM = 'codec = "none"\n[source]\ntype = "file"\npaths = ["in.log"]\n'
LOG_SINK = 'type = "log"\ndirectory = "log"'


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, of DISK_MB or as many as the test asks for."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', DISK_MB)}m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs ({done.stderr.strip()}): run the tests as root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "site") as laid_out:
        laid_out.make_pki()
        laid_out.write_receiver(LOG_SINK, listeners={"localhost:0": '["hybrid"]'})
        make_impatient(laid_out.forwarder)
        yield laid_out


def fill(disk: Path) -> Path:
    """Take what room is left, as another program would."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], capture_output=True, check=False)
    return filler


def wait_until(condition: Callable[[], object], program: Program, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is true; a forwarder that is busy or just starting does not answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(NotAnswered):
            if condition():
                return
        time.sleep(0.05)
    pytest.fail(program.tail())


def write_input(site: Site, first: int, end: int) -> None:
    with (site.directory / "in.log").open("ab") as out:
        out.writelines(numbered_lines("in", first, end))


def judged(log: Path, sent: int) -> Finding:
    return judge("s", sent, (bytes(record.value or b"") for record in read_records(log, "s")), source="in")


def tells_of_full_disk(program: Program, spool: Path) -> bool:
    """Whether its file needs more room when it is opened is chance: then that fails, else the source waits."""
    return any(str(spool) in str(event) and "free some space" in str(event) for event in program.events())


def put_state_on(disk: Path, site: Site) -> None:
    config = site.directory / "logfwd.toml"
    config.write_text(config.read_text().replace('state_dir = "state"', f'state_dir = "{disk}"'))


@pytest.mark.parametrize("small_disk", [pytest.param(40, marks=pytest.mark.chaos), 24], indirect=True)
def test_a_full_disk_under_the_spool_makes_the_source_wait_and_the_spool_still_drains(
    site: Site, small_disk: Path
) -> None:
    addresses = site.start_receiver()
    site.write_receiver(LOG_SINK, listeners={addresses[0]: '["hybrid"]'})
    site.receiver.stop()
    site.write_forwarder(addresses)
    put_state_on(small_disk, site)
    site.write_stream("s", STREAM)
    write_input(site, 0, RECORDS // 2)
    site.start_forwarder()
    site.forwarder.wait_for("spool full")
    filler = fill(small_disk)
    site.forwarder.kill()  # what a full disk does at its worst: the file has to be opened again on it
    site.start_forwarder()
    wait_until(lambda: tells_of_full_disk(site.forwarder, small_disk / "s.spool"), site.forwarder)
    site.start_receiver()
    wait_until(lambda: site.streams()["s"]["records"]["acknowledged"] > 0, site.forwarder)
    filler.unlink()
    write_input(site, RECORDS // 2, RECORDS)
    assert site.wait_until_acknowledged(RECORDS, ["s"], seconds=60), site.forwarder.tail()
    assert site.streams()["s"]["resets"] == 0
    site.stop()
    assert judged(site.directory / "log", RECORDS).exact


@pytest.mark.parametrize("small_disk", [4], indirect=True)
def test_a_disk_that_is_too_small_is_refused_with_what_it_takes(site: Site, small_disk: Path) -> None:
    site.write_forwarder(["localhost:1"])
    put_state_on(small_disk, site)
    site.write_stream("s", STREAM)
    site.forwarder.start()
    assert site.forwarder.wait(seconds=60) == 78
    said = site.forwarder.tail()
    assert f"{small_disk}: state_dir: " in said
    assert "needs 8 MiB free there, 4.0 MiB more" in said
    assert "Traceback" not in said


def test_a_full_disk_under_the_log_refuses_batches_and_goes_on_when_there_is_room(site: Site, small_disk: Path) -> None:
    sink = LOG_SINK.replace('"log"\n', '"log"\n').replace('directory = "log"', f'directory = "{small_disk}"')
    site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'})
    site.write_forwarder(site.start_receiver())
    site.write_stream("s", STREAM)
    write_input(site, 0, 1_000)
    site.start_forwarder()
    assert site.wait_until_acknowledged(1_000, ["s"], seconds=30), site.forwarder.tail()
    filler = fill(small_disk)
    write_input(site, 1_000, RECORDS // 2)
    refused = site.forwarder.wait_for("batch refused")[0]
    assert f"{small_disk}/s-0: the disk is full" in refused["detail"], refused
    acknowledged = site.streams()["s"]["records"]["acknowledged"]
    assert 1_000 <= acknowledged < RECORDS // 2
    filler.unlink()
    assert site.wait_until_acknowledged(RECORDS // 2, ["s"], seconds=60), site.forwarder.tail()
    site.stop()
    assert judged(small_disk, RECORDS // 2).exact
