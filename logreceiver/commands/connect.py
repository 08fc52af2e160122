"""`logreceiver validate --connect`: whether the sink could be used as the configuration says."""

from __future__ import annotations

from logreceiver.config import ReceiverConfig
from logreceiver.sinks.make import findings
from streams import program
from streams.errors import Code, SinkUnavailable
from streams.telemetry import logs


async def look(config: ReceiverConfig) -> None:
    """Print a line for each thing looked at; SinkUnavailable if something would have streams refused."""
    logs.silence()  # what the sink logs is printed here
    topics, unknown = _topics(config)
    faults = 0
    async for finding in findings(config.sink, topics):
        faults += finding.is_fault
        program.say(f"sink: {'fault: ' if finding.is_fault else ''}{finding.text}", err=finding.is_fault)
    for pattern in unknown:
        program.say(f"sink: topics of streams {pattern} are looked at once such a stream comes")
    if faults:
        raise SinkUnavailable(Code.UNAVAILABLE, f"{faults} {'fault' if faults == 1 else 'faults'}, as said above")


def _topics(config: ReceiverConfig) -> tuple[list[str], list[str]]:
    """The topics that the rules and the ledger name, and the patterns whose streams only forwarders know."""
    topics, unknown = [], []
    for rule in config.allow:
        for stream in rule.streams:
            if "{stream}" in rule.topic and set("*?[") & set(stream):
                unknown.append(stream)
            else:
                topics.append(rule.topic.replace("{stream}", stream))
    if config.ledger is not None:
        topics.append(config.ledger.topic)
    return list(dict.fromkeys(topics)), list(dict.fromkeys(unknown))
