"""Which code serves which `[sink]` section: a row for each kind of sink.

Only the sink in use is imported: the libraries of the others would cost memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from logreceiver.sinks import Reader, Sink, SinkWitness
from logreceiver.sinks.findings import Finding, of_log
from logreceiver.sinks.log.damage import OnDamage, stop
from logreceiver.sinks.settings import AnySink, KafkaSink, LogSink


def make_sink(settings: AnySink, *, ledger_topic: str = "", witness: SinkWitness | None = None) -> Sink:
    """The sink of a section; `start` opens it. The ledger's topic is kept longer by a sink that deletes old records.

    `witness` gets to know of its handshakes with servers, and of its certificate.
    """
    match settings:
        case LogSink():
            from logreceiver.sinks.log import sink as log

            return log.LogSink(settings, ledger_topic=ledger_topic)
        case KafkaSink():
            from logreceiver.sinks.kafka import sink as kafka

            return kafka.KafkaSink(settings, witness)


def renewal(sink: Sink, settings: AnySink) -> Callable[[], None]:
    """Check a section that differs from the sink's in its `live` fields; calling the result takes them. ConfigError."""
    if isinstance(settings, KafkaSink):
        from logreceiver.sinks.kafka import sink as kafka

        assert isinstance(sink, kafka.KafkaSink)
        return sink.renewal(settings)
    return lambda: None


def make_reader(settings: AnySink, *, on_damage: OnDamage = stop) -> Reader:
    """What reads the same sink while receivers write to it; `on_damage` decides whether it goes on behind damage."""
    match settings:
        case LogSink():
            from logreceiver.sinks.log.reader import LogReader

            return LogReader(settings.directory, on_damage=on_damage)
        case KafkaSink():
            from logreceiver.sinks.kafka import sink as kafka

            return kafka.KafkaSink(settings)


def findings(settings: AnySink, topics: Sequence[str]) -> AsyncIterator[Finding]:
    """A look at the sink, without using it: is it there, and may these topics be written to?"""
    match settings:
        case LogSink():
            return of_log(settings)
        case KafkaSink():
            from logreceiver.sinks.kafka.inspection import of_kafka

            return of_kafka(settings, topics)
