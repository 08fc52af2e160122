"""`logbench kafka` and `logbench records`: a Kafka to try the pipeline against, and what is in its topics."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from pathlib import Path

import click

from bench.lab.kafka import Kafka, consume
from bench.lab.kafkatools import KafkaFailed
from streams.records.printed import for_terminal, printed


@click.command(short_help="Run a Kafka on this machine, to try the pipeline against.")
@click.option("--port", type=click.IntRange(1, 65535), default=9092, show_default=True, help="Port for clients.")
def kafka(port: int) -> None:
    """Run a broker on localhost until Ctrl-C or SIGTERM; it begins empty each time, and leaves nothing behind.

    In logreceiver.toml: brokers = ["localhost:9092"] and create_topics = true. `logbench records TOPIC` prints what
    arrived. For real use, run a Kafka of your own: this one has a single replica, no TLS and no authentication.
    """
    with tempfile.TemporaryDirectory(prefix="logbench-kafka-") as name, Kafka(Path(name) / "kafka", port=port):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        click.echo(f"Kafka on localhost:{port}; end it with Ctrl-C")
        stop.wait()


@click.command(short_help="Print the records of a Kafka topic.")
@click.argument("topic")
@click.option("--brokers", default="localhost:9092", show_default=True, help="Address of a broker.")
def records(topic: str, brokers: str) -> None:
    """Print what is in TOPIC now, a record in each line, and exit with 1 if it cannot be read."""
    try:
        for value in consume(brokers, topic):
            sys.stdout.buffer.write((for_terminal(printed(value)) if sys.stdout.isatty() else value) + b"\n")
    except KafkaFailed as error:
        raise click.ClickException(f"{topic} cannot be read from {brokers}: {str(error).splitlines()[-1]}") from error
