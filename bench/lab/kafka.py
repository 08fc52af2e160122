"""A real Apache Kafka: one to three brokers in KRaft mode as child processes, without Docker.

This module chooses the ports, below the range that the system uses for outgoing connections, so that a stopped broker
finds its port free again. A broker counts as up when its own log says so, never because a port is open. Children die
with the process that started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import uuid
import weakref
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.lab.kafkatools import KafkaFailed, classpath, jars, java, run_tool
from bench.lab.processes import die_with_parent, wait_until

START_SECONDS = 180.0
STILL_SECONDS = 10.0
STARTED = "Kafka Server started"
_BROKER_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
_PORTS = range(20_000, 32_000)
_dice = random.SystemRandom()  # test processes with one seed must not choose the same ports


def free_ports(count: int) -> list[int]:
    """Ports without a listener, outside the range of outgoing connections, so that they stay free over a restart."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = _dice.choice(_PORTS)
            listener = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                found.append(port)
        return found


@dataclass
class Broker:
    """One broker's process, files and ports."""

    node_id: int
    directory: Path
    port: int
    internal_port: int
    controller_port: int
    process: subprocess.Popen[bytes] | None = None
    log_start: int = field(default=0)

    @property
    def log_path(self) -> Path:
        return self.directory / "broker.log"

    @property
    def properties_path(self) -> Path:
        return self.directory / "server.properties"

    @property
    def data(self) -> Path:
        """The directory of its partitions' segments."""
        return self.directory / "data"

    def has_started(self) -> bool:
        """Whether its log says so; raises KafkaFailed if it ended instead."""
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)
            if STARTED.encode() in log.read():
                return True
        assert self.process is not None
        if self.process.poll() is not None:
            raise KafkaFailed(f"broker {self.node_id} ended with {self.process.returncode}\n{self.tail()}")
        return False

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP, and wait until every thread has taken notice: until then some still answer."""
        self.signal(signal.SIGSTOP)
        wait_until(self._is_still, STILL_SECONDS, every_seconds=0.001)

    def _is_still(self) -> bool:
        """Whether all threads are stopped, proc(5), or the process has ended."""
        assert self.process is not None
        try:
            threads = [stat.read_text() for stat in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
        except OSError:  # one has just ended
            return False
        return all(thread.rpartition(")")[2].split()[0] in "TZX" for thread in threads)


def _kill_all(brokers: Sequence[Broker]) -> None:
    for broker in brokers:
        broker.signal(signal.SIGKILL)
        if broker.process is not None:
            broker.process.wait()


class Kafka:
    """`with Kafka(directory) as kafka` or `async with`: a cluster that is up inside the block.

    Brokers are numbered from 1. `protocol` is the security protocol of the listener that clients use; brokers and
    controllers talk to each other over plaintext listeners of their own. `port` is the first broker's, for clients; a
    free one if it is None. `overrides` are server properties; "{directory}" in a value is the broker's own directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int = 1,
        overrides: Mapping[str, str] | None = None,
        protocol: str = "PLAINTEXT",
        host: str = "127.0.0.1",
        port: int | None = None,
        jvm_options: Sequence[str] = (),
        artifacts: Sequence[str] = (),
        scram: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._count = brokers
        self._overrides = dict(overrides or {})
        self._protocol = protocol
        self._host = host
        self._port = port
        self._jvm_options = tuple(jvm_options)
        self._artifacts = tuple(artifacts)
        self._scram = dict(scram or {})
        self.brokers: list[Broker] = []
        self._cleanup = weakref.finalize(self, _kill_all, self.brokers)  # also at the interpreter's exit

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Format the directories and start all brokers; returns when every one is up."""
        self._launch_all()
        self._wait(self.brokers)

    def stop(self) -> None:
        """Stop all brokers with SIGKILL, since their data is not needed afterwards."""
        _kill_all(self.brokers)

    def __enter__(self) -> Kafka:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Kafka:
        await asyncio.to_thread(jars)
        try:
            self._launch_all()  # in this thread: a child dies with the thread that started it
            await asyncio.to_thread(self._wait, self.brokers)
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    # -- faults ------------------------------------------------------------------------------------------------

    def kill(self, broker: int = 1) -> None:
        """kill -9, and wait for the end."""
        _kill_all([self._broker(broker)])

    def pause(self, broker: int = 1) -> None:
        """SIGSTOP: the broker keeps its connections and falls silent."""
        self._broker(broker).pause()

    def resume(self, broker: int = 1) -> None:
        """SIGCONT after `pause`."""
        self._broker(broker).signal(signal.SIGCONT)

    def launch(self, broker: int = 1) -> None:
        """Start one broker again and do not wait for it."""
        self._launch(self._broker(broker))

    def restart(self, broker: int = 1, *, clean: bool = False) -> None:
        """Stop one broker (by kill -9, or cleanly) and start it again on the same ports and data."""
        one = self._broker(broker)
        if clean and one.process is not None:
            one.signal(signal.SIGTERM)
            one.process.wait(START_SECONDS)
        self.kill(broker)
        self._launch(one)
        self._wait([one])

    def _broker(self, number: int) -> Broker:
        return self.brokers[number - 1]

    # -- addresses, topics and records -------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        """HOST:PORT of each broker's client listener, separated by commas."""
        return ",".join(f"{self._host}:{broker.port}" for broker in self.brokers)

    @property
    def internal(self) -> str:
        """HOST:PORT of each broker's internal plaintext listener, separated by commas."""
        return ",".join(f"127.0.0.1:{broker.internal_port}" for broker in self.brokers)

    def run_tool(self, main_class: str, args: Sequence[str | Path], *, seconds: float = 120.0) -> bytes:
        """Run one of Kafka's tools; see the function `run_tool`."""
        return run_tool(main_class, args, seconds=seconds)

    def create_topic(
        self, topic: str, *, partitions: int = 1, replicas: int = 1, configs: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic with Kafka's tool."""
        args = [
            "--bootstrap-server",
            self.internal,
            "--create",
            "--topic",
            topic,
            "--partitions",
            str(partitions),
            "--replication-factor",
            str(replicas),
        ]
        for key, value in (configs or {}).items():
            args += ["--config", f"{key}={value}"]
        run_tool("org.apache.kafka.tools.TopicCommand", args)

    def consume(self, topic: str) -> Iterator[bytes]:
        """The values in a topic now, read by Kafka's own consumer; in order within a partition."""
        return consume(self.internal, topic)

    # -- starting ----------------------------------------------------------------------------------------------

    def _launch_all(self) -> None:
        ports = iter(free_ports(3 * self._count))
        for node_id in range(1, self._count + 1):
            directory = self.directory.resolve() / f"broker-{node_id}"
            directory.mkdir(parents=True)
            self.brokers.append(Broker(node_id, directory, next(ports), next(ports), next(ports)))
        if self._port is not None:
            self.brokers[0].port = self._port
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        for broker in self.brokers:
            broker.properties_path.write_text("".join(f"{k}={v}\n" for k, v in self._properties(broker).items()))
            users = [f"SCRAM-SHA-512=[name={name},password={word}]" for name, word in self._scram.items()]
            run_tool(
                "kafka.tools.StorageTool",
                [
                    "format",
                    "-t",
                    cluster_id,
                    "-c",
                    broker.properties_path,
                    *(part for user in users for part in ("--add-scram", user)),
                ],
            )
        for broker in self.brokers:
            self._launch(broker)

    def _properties(self, broker: Broker) -> dict[str, str]:
        # Two controllers would stop if either did; so there are one or three.
        voters = self.brokers if self._count >= 3 else self.brokers[:1]
        roles = "broker,controller" if broker in voters else "broker"
        listeners = {
            "CLIENT": f"CLIENT://{self._host}:{broker.port}",
            "INTERNAL": f"INTERNAL://127.0.0.1:{broker.internal_port}",
        }
        controller = [f"CONTROLLER://127.0.0.1:{broker.controller_port}"] if broker in voters else []
        replicas = str(min(self._count, 3))
        properties = {
            "process.roles": roles,
            "node.id": str(broker.node_id),
            "controller.quorum.voters": ",".join(f"{v.node_id}@127.0.0.1:{v.controller_port}" for v in voters),
            "listeners": ",".join([*listeners.values(), *controller]),
            "advertised.listeners": ",".join(listeners.values()),
            "listener.security.protocol.map": f"CLIENT:{self._protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(broker.data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker may register again only after its old session has expired.
            "broker.session.timeout.ms": "2500",
            "broker.heartbeat.interval.ms": "500",
        }
        properties.update(self._overrides)
        return {key: value.replace("{directory}", str(broker.directory)) for key, value in properties.items()}

    def _launch(self, broker: Broker) -> None:
        broker.log_start = broker.log_path.stat().st_size if broker.log_path.exists() else 0
        argv = [
            str(java()),
            *_BROKER_JVM,
            *self._jvm_options,
            "-cp",
            classpath(self._artifacts),
            "kafka.Kafka",
            str(broker.properties_path),
        ]
        with broker.log_path.open("ab") as log:
            broker.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=broker.directory,
                preexec_fn=die_with_parent,
            )

    def _wait(self, brokers: Sequence[Broker]) -> None:
        for broker in brokers:
            if not wait_until(broker.has_started, START_SECONDS, every_seconds=0.05):
                raise KafkaFailed(f"broker {broker.node_id}: not up within {START_SECONDS:.0f} s\n{broker.tail()}")


def consume(bootstrap: str, topic: str) -> Iterator[bytes]:
    """The values in a topic of any Kafka now, read by Kafka's own consumer; in order within a partition."""
    where = ["--bootstrap-server", bootstrap, "--topic", topic]
    offsets = run_tool("org.apache.kafka.tools.GetOffsetShell", where).decode().split()
    count = sum(int(line.rpartition(":")[2]) for line in offsets)
    if not count:
        return iter(())
    args = [*where, "--from-beginning", "--max-messages", str(count), "--timeout-ms", "30000"]
    return iter(run_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", args).split(b"\n")[:-1])
