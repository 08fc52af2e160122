"""A whole installation in one directory: private CA, receivers, a forwarder, their configs, logs and data.

Every program runs as a process of its own, the way an operator runs it: the same commands, the same files. The demo,
the benchmarks, the chaos runs and the integration tests are built on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bench.lab import adminclient
from bench.lab.leaves import Leaves
from bench.lab.processes import StartFailed, die_with_parent, wait_until
from streams.security.modes import MODES
from streams.telemetry.client import NotAnswered

START_SECONDS = 30.0
CALM_LOOKS = 8
"""Found empty this many times in a row, which takes longer than a scan and a linger: nothing is in flight either."""
FORWARDER_IDENTITY = "spiffe://demo/host-1"


def _append(path: Path) -> BinaryIO:
    return path.open("ab")


@dataclass
class Program:
    """One of our programs as a child process; its log is JSON lines in a file."""

    argv: list[str]
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    open_output: Callable[[Path], BinaryIO] = _append
    """Opens what it writes its log to: the file itself, or something that leads there."""
    descriptors: Sequence[int] = ()
    """What it inherits besides its standard ones."""
    process: subprocess.Popen[bytes] | None = None
    _log_start: int = 0
    usage: Any = None

    def start(self) -> None:
        with self.open_output(self.log_path) as out:
            self._log_start = self.log_path.stat().st_size
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
                env={**os.environ, **self.environment},
                pass_fds=self.descriptors,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def events(self) -> Iterator[dict[str, Any]]:
        """Log events since the last start; lines that are not JSON (tracebacks) are skipped."""
        if not self.log_path.exists():
            return
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            for line in log:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event

    def wait_for(self, event: str, *, times: int = 1, seconds: float = START_SECONDS) -> list[dict[str, Any]]:
        """Wait until an event has been logged this many times; raises StartFailed with the end of the log."""
        deadline = time.monotonic() + seconds
        while True:
            found = [entry for entry in self.events() if entry.get("event") == event]
            if len(found) >= times:
                return found
            assert self.process is not None
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = f"ended with {self.process.returncode}" if ended else f"no {event!r} within {seconds:.0f} s"
                raise StartFailed(f"{Path(self.argv[0]).name}: {why}\n{self.tail()}")
            time.sleep(0.02)

    def admin_address(self) -> str:
        """Its admin address since its last start."""
        return str(self.wait_for("admin listening")[-1]["address"])

    def tail(self, lines: int = 20) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: int) -> None:
        """Send a signal to a running program."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and wait for a clean end; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self._reap(seconds)

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for a program that ends by itself; returns the exit code."""
        return self._reap(seconds)

    def _reap(self, seconds: float = 20.0) -> int:
        """Wait for the end and keep the process's resource usage."""
        assert self.process is not None
        if self.process.returncode is not None:
            return self.process.returncode
        deadline = time.monotonic() + seconds
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.usage = usage
                self.process.returncode = os.waitstatus_to_exitcode(status)
                return self.process.returncode
            if time.monotonic() > deadline:
                self.process.kill()
                deadline += 5
            time.sleep(0.01)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def command(name: str) -> str:
    """The path of one of our commands, next to the Python that runs this."""
    return str(Path(sys.executable).parent / name)


@dataclass
class Site:
    """`directory` holds everything; the system chooses the ports, which stay the same over restarts."""

    directory: Path
    identity: str = FORWARDER_IDENTITY
    admin_address: str = ""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.streams_dir = self.directory / "streams.d"
        self.streams_dir.mkdir(exist_ok=True)
        self.forwarder = Program(
            [command("logfwd"), "run", "-c", str(self.directory / "logfwd.toml")], self.directory / "logfwd.log"
        )
        self.receiver = self.make_receiver("logreceiver")
        self.leaves = Leaves(self.directory / "pki", self.identity)

    def make_receiver(self, name: str) -> Program:
        """A receiver configured by NAME.toml; a site may have several."""
        config = self.directory / f"{name}.toml"
        return Program([command("logreceiver"), "run", "-c", str(config)], self.directory / f"{name}.log")

    # -- files -------------------------------------------------------------------------------------------------

    def make_pki(self) -> None:
        """The authorities, and leaves for every mode and both programs."""
        self.leaves.make()

    def _tls(self, name: str) -> str:
        """The sections for which there are files; the last line of [tls.mlkem] is for forwarders alone."""
        sections = [
            ("tls", "pki", name, f"{name}.key"),
            ("tls.delegated", "pki/mldsa", f"{name}-signs", f"{name}.dc"),
            ("tls.mldsa", "pki/mldsa", name, f"{name}.key"),
            ("tls.mlkem", "pki/mldsa", f"{name}-kem", f"{name}-kem.key"),
        ]
        parts = [
            f'[{section}]\ncertificate = "{pki}/{leaf}.pem"\nkey = "{pki}/{key}"\nca = "{pki}/ca.pem"\n'
            for section, pki, leaf, key in sections
            if (self.directory / pki / key).exists()
        ]
        stored = 'stored_keys = ["pki/mldsa/receiver.pdk"]\n'
        return "".join(parts) + (stored if name == "forwarder" and parts and "[tls.mlkem]" in parts[-1] else "")

    def write_receiver(
        self,
        sink: str,
        *,
        listeners: Mapping[str, str] | Sequence[tuple[str, str]],
        more: str = "",
        name: str = "logreceiver",
    ) -> None:
        """`listeners`: address → modes as a TOML list, e.g. {"127.0.0.1:0": '["hybrid"]'}; `sink`: TOML of [sink]."""
        pairs = listeners.items() if isinstance(listeners, Mapping) else listeners
        parts = [
            'grant_key_file = "pki/grant.key"\nstop_grace = "3s"\n',
            more,
            self._tls("receiver"),
            '[admin]\naddress = "127.0.0.1:0"\n',
        ]
        parts += [f'[[listener]]\naddress = "{address}"\nmodes = {modes}\n' for address, modes in pairs]
        all_modes = json.dumps(list(MODES))  # a list of strings is the same in TOML
        parts.append(f'[[allow]]\nidentity = "spiffe://demo/*"\nstreams = ["*"]\nmodes = {all_modes}\n')
        parts.append(f"[sink]\n{sink}\n")
        (self.directory / f"{name}.toml").write_text("\n".join(parts))

    def write_forwarder(self, receivers: list[str], *, more: str = "", stop_grace: str = "1s") -> None:
        listed = ", ".join(f'"{receiver}"' for receiver in receivers)
        (self.directory / "logfwd.toml").write_text(
            f'state_dir = "state"\nreceivers = [{listed}]\nserver_name = "localhost"\n'
            f'stop_grace = "{stop_grace}"\n{more}\n' + self._tls("forwarder") + '[admin]\naddress = "127.0.0.1:0"\n'
        )

    def write_stream(self, name: str, text: str) -> None:
        (self.streams_dir / f"{name}.toml").write_text(f'name = "{name}"\n{text}')

    # -- processes ---------------------------------------------------------------------------------------------

    def start_receiver(self, *, listeners: int = 1) -> list[str]:
        """Start, wait until it listens, and return the addresses in the order of the config."""
        self.receiver.start()
        found = self.receiver.wait_for("listening", times=listeners)
        self.receiver.wait_for("admin listening")
        return [str(event["address"]) for event in found]

    def start_forwarder(self) -> None:
        self.forwarder.start()
        self.admin_address = self.forwarder.admin_address()

    def _find_admin(self) -> None:
        """A restarted forwarder has a new admin address."""
        found = [event for event in self.forwarder.events() if event.get("event") == "admin listening"]
        if found:
            self.admin_address = str(found[-1]["address"])

    def streams(self) -> dict[str, dict[str, Any]]:
        """The forwarder's rows in /api/v1/streams, by stream; raises NotAnswered."""
        self._find_admin()
        return {row["stream"]: row for row in adminclient.streams(self.admin_address)}

    def wait_until_acknowledged(
        self, records: int, names: list[str], seconds: float, *, poll_seconds: float = 0.05
    ) -> bool:
        """Wait until every stream has this many records acknowledged; False if that takes too long."""

        def acknowledged() -> bool:
            with contextlib.suppress(NotAnswered, KeyError):
                rows = self.streams()
                return all(rows[name]["records"]["acknowledged"] >= records for name in names)
            return False

        return wait_until(acknowledged, seconds, every_seconds=poll_seconds)

    def wait_until_drained(self, names: list[str], seconds: float) -> bool:
        """Wait until nothing is left in the files or the spool of these streams; False if that takes too long."""
        calm = 0

        def drained() -> bool:
            nonlocal calm
            with contextlib.suppress(NotAnswered, KeyError):
                rows = self.streams()
                empty = all(rows[name]["spool"]["batches"] == rows[name]["source_lag_bytes"] == 0 for name in names)
                calm = calm + 1 if empty else 0
            return calm >= CALM_LOOKS

        return wait_until(drained, seconds, every_seconds=0.1)

    def stop(self) -> None:
        """Stop the programs that still run."""
        for program in (self.forwarder, self.receiver):
            if program.running():
                program.stop()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
