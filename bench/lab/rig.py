"""The set-up of the measuring commands: one sink and one receiver that stay up, and forwarders side by side.

Every forwarder is a process with its own state and streams, so its cost is its own; links are long-lived and open
before a clock runs. An admin address is polled at most twice a second; a run ends at the time of the last write to
the sink's segments, which costs the measured processes nothing to find out.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.lab.load import Base, Feed
from bench.lab.processes import StartFailed, wait_until
from bench.lab.site import Program, Site

POLL_SECONDS = 0.5
MEMORY = Path("/dev/shm")  # noqa: S108
SPARE_BYTES = 2_000_000_000
LEDGER = "logfwd.ledger"


@dataclass(frozen=True)
class Setup:
    """One forwarder: its streams, and where its spool is."""

    mode: str = "hybrid"
    codec: str = "zstd"
    spool: str = "disk"
    streams: int = 1
    twins: int = 0
    named: tuple[tuple[str, str], ...] = ()
    """Names and modes of the streams, instead of `streams` of one mode."""
    tables: tuple[tuple[str, str], ...] = ()
    """Names of streams, and the TOML of their tables, instead of `streams` that read files."""
    scan: str = "50ms"
    append_time: bool = False
    """Kafka's topics keep the time of the append instead of the time of reading."""
    more: str = ""
    """Further lines of each stream's file."""
    input_bytes: int = 1_000_000_000
    """Largest total size of the files in its input directories at any time."""


@dataclass
class Forwarder:
    """A running forwarder with its links open. `originals` are its streams without their twins."""

    site: Site
    originals: list[str]
    twins: list[str]
    state: Path
    _feeds: list[Feed] = field(default_factory=list)

    @property
    def program(self) -> Program:
        return self.site.forwarder

    @property
    def names(self) -> list[str]:
        return self.originals + self.twins

    def input(self, stream: str) -> Path:
        """The directory that a stream reads: `http.log` and its rotations."""
        return self.site.directory / "in" / stream

    def records(self, state: str = "acknowledged", names: Sequence[str] = ()) -> int:
        """The smallest count of records in a state over its streams; records that a twin dropped count as done."""
        rows = self.site.streams()
        return min(int(rows[name]["records"][state] + rows[name]["records"]["dropped"]) for name in names or self.names)

    def row(self) -> dict[str, Any]:
        """The first stream's row in /api/v1/streams."""
        return self.site.streams()[self.originals[0]]

    def feeds(self, base: Base) -> list[Feed]:
        """One feed per original stream."""
        return [Feed(base, self.input(name)) for name in self.originals]

    def wait_for(self, records: int, seconds: float) -> None:
        """Wait until every stream has this many records acknowledged; raises StartFailed with the count so far."""
        if not wait_until(lambda: self.records() >= records, seconds, every_seconds=POLL_SECONDS):
            raise StartFailed(f"only {self.records()} of {records} acknowledged\n{self.program.tail()}")


class Rig:
    """`with Rig(directory) as rig`: sink and receiver are up inside; `with rig.forwarder(setup) as forwarder`.

    `more` are further lines of the receiver's configuration, `overrides` are server properties of the broker,
    `launcher` is put in front of the commands of forwarder and receiver.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sink: str = "log",
        modes: Sequence[str] = ("hybrid",),
        more: str = "",
        overrides: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.directory, self.sink = directory, sink
        self.kafka: Any = None
        self.site = Site(directory / "receiver")
        self.addresses: dict[str, str] = {}
        self._modes, self._more = list(dict.fromkeys(modes)), more
        self._overrides, self._launcher = overrides, launcher
        self._stack = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Rig:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        if self.sink == "kafka":
            from bench.lab.kafka import Kafka

            self.kafka = self._stack.enter_context(Kafka(self.directory / "kafka", overrides=self._overrides))
        self._stack.enter_context(self.site)
        self.site.make_pki()
        self.site.receiver.argv[:0] = self._launcher
        self.start_receiver()

    def start_receiver(self) -> None:
        """Start it, or restart it at the same addresses."""
        toml = 'type = "log"\ndirectory = "log"'
        if self.kafka is not None:
            toml = f'type = "kafka"\nbrokers = ["{self.kafka.bootstrap}"]\ncreate_topics = true'
        listeners = {
            self.addresses.get(mode, f"127.0.0.{1 + number}:0"): f'["{mode}"]'
            for number, mode in enumerate(self._modes)
        }
        self.site.write_receiver(toml, listeners=listeners, more=self._more)
        found = self.site.start_receiver(listeners=len(self._modes))
        self.addresses = dict(zip(self._modes, found, strict=True))

    @property
    def receiver(self) -> Program:
        return self.site.receiver

    def pids(self, forwarder: Forwarder) -> dict[str, int]:
        found = {"forwarder": forwarder.program.pid, "receiver": self.receiver.pid}
        if self.kafka is not None:
            found["broker"] = self.kafka.brokers[0].process.pid
        return found

    @contextlib.contextmanager
    def forwarder(self, setup: Setup) -> Iterator[Forwarder]:
        """A forwarder that has opened all its links."""
        self._count += 1
        label = f"f{self._count}"
        with contextlib.ExitStack() as stack:
            site = Site(self.directory / label)
            (site.directory / "pki").symlink_to(self.site.directory.resolve() / "pki")
            state = site.directory / "state"
            if setup.spool == "memory":
                state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logbench-", dir=MEMORY)))
                (site.directory / "state").symlink_to(state)
            stack.callback(shutil.rmtree, site.directory, ignore_errors=True)
            stack.enter_context(site)
            (site.directory / "in").symlink_to(stack.enter_context(_input_directory(site.directory, setup.input_bytes)))
            originals = [name for name, _ in setup.named or setup.tables]
            originals = originals or [f"{label}-s{number}" for number in range(setup.streams)]
            if setup.append_time and self.kafka is not None:
                for name in originals:
                    self.kafka.create_topic(name, configs={"message.timestamp.type": "LogAppendTime"})
            forwarder = Forwarder(site, originals, self._write_streams(site, originals, setup), state)
            site.write_forwarder([self.addresses[next((mode for _, mode in setup.named), setup.mode)]])
            site.forwarder.argv[:0] = self._launcher
            site.start_forwarder()
            site.forwarder.wait_for("link opened", times=len(forwarder.names))
            yield forwarder

    def _write_streams(self, site: Site, originals: list[str], setup: Setup) -> list[str]:
        twins = []
        for name in originals:
            (site.directory / "in" / name).mkdir()
            source = dict(setup.tables).get(name)
            if source is None:
                source = f'[source]\ntype = "file"\npaths = ["in/{name}/*.log*"]\nscan = "{setup.scan}"\n{setup.more}'
            mode = dict(setup.named).get(name, setup.mode)
            where = f'security = "{mode}"\nreceivers = ["{self.addresses[mode]}"]\n'
            site.write_stream(name, f'{where}codec = "{setup.codec}"\n{source}')
            for number in range(setup.twins):
                twins.append(f"{name}-twin{number}")
                site.write_stream(twins[-1], f'security = "{setup.mode}"\nmirror_of = "{name}"\n')
        return twins

    def segments(self, stream: str) -> list[Path]:
        """The files in which the sink stores a stream."""
        roots = [self.site.directory / "log"] if self.kafka is None else [each.data for each in self.kafka.brokers]
        return [path for root in roots for path in root.glob(f"{stream}-[0-9]*/*.log")]

    def stored_at(self, streams: Sequence[str]) -> float:
        """When anything was last written to these streams' segments, in seconds since the epoch."""
        return max(path.stat().st_mtime for name in streams for path in self.segments(name))


@contextlib.contextmanager
def _input_directory(beside: Path, most_bytes: int) -> Iterator[Path]:
    """On tmpfs if there is enough memory, so that writing the input does not share the disk with spool and sink."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free_bytes = int(meminfo["MemAvailable"].split()[0]) * 1024
    if MEMORY.is_dir():
        free_bytes = min(free_bytes, shutil.disk_usage(MEMORY).free)
    roomy = MEMORY.is_dir() and free_bytes > 2 * most_bytes + SPARE_BYTES
    with tempfile.TemporaryDirectory(prefix="logbench-input-", dir=MEMORY if roomy else beside) as place:
        yield Path(place).resolve()
