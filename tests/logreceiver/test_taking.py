"""What a running receiver takes of a new configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from logreceiver.config import Admin, Allow, Deny, Ledger, Limits, Listener, ReceiverConfig
from logreceiver.sinks.settings import KafkaSink, LogSink, Sasl
from logreceiver.taking import take
from streams.config.changes import digest

SASL = Sasl(username="me", password_file=Path("password"))
CONFIG = ReceiverConfig(
    grant_key_file=Path("grant.key"),
    listener=(Listener(address=":7443"),),
    allow=(Allow(identity="*", streams=("*",)),),
    sink=KafkaSink(brokers=("kafka:9092",)),
)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, ()),
        ({"deny": (Deny(identity="host-1"),), "allow": ()}, ("allow", "deny")),
        ({"limits": Limits(max_links=7, hello_seconds=1.0)}, ("limits.max_links", "limits.hello")),
        ({"listener": (Listener(address=":7444"),)}, ("listener",)),
        ({"ledger": None}, ("ledger",)),
        ({"ledger": Ledger(topic="other")}, ("ledger.topic",)),
        ({"grant_key_file": Path("other.key"), "stop_grace_seconds": 1.0}, ("grant_key_file", "stop_grace")),
        (
            {"sink": KafkaSink(brokers=("kafka:9092",), sasl=SASL, create_topics=True)},
            ("sink.sasl", "sink.create_topics"),
        ),
    ],
)
def test_all_but_what_was_bound_at_the_start_is_taken(changes: dict[str, Any], taken: tuple[str, ...]) -> None:
    new = replace(CONFIG, **changes)
    assert take(CONFIG, new).config == new
    assert set(take(CONFIG, new).taken) == set(taken)
    assert take(CONFIG, new).waits == ()


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({"admin": Admin(address=":9000")}, ("admin.address",)),
        ({"admin": None}, ("admin",)),
        ({"sink": KafkaSink(brokers=("other:9092",))}, ("sink.brokers",)),
        ({"sink": LogSink(directory=Path("log"))}, ("sink",)),
    ],
)
def test_what_waits_for_a_restart_is_named_and_the_rest_is_taken(
    changes: dict[str, Any], waits: tuple[str, ...]
) -> None:
    deny = (Deny(identity="host-1"),)
    taking = take(CONFIG, replace(CONFIG, deny=deny, **changes))
    assert taking.config == replace(CONFIG, deny=deny)
    assert (taking.taken, taking.waits) == (("deny",), waits)


def test_a_digest_names_a_configuration() -> None:
    assert digest(CONFIG) == digest(replace(CONFIG))
    assert digest(CONFIG) != digest(replace(CONFIG, deny=(Deny(identity="host-1"),)))
