"""Under which names the admin address answers, and that both programs take them from their configuration."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec
import pytest

from logfwd.config import Admin as ForwardersAdmin
from logreceiver.config import Admin as ReceiversAdmin
from streams.telemetry.hosts import Hosts
from tests.support.installation import Installation, forwarding, running

NAMES = ("Logs.Example.Net",)


@pytest.mark.parametrize(
    ("bound", "names", "header", "allowed"),
    [
        ("127.0.0.1", NAMES, "logs.example.net", True),
        ("127.0.0.1", NAMES, "LOGS.example.net.:8443", True),
        ("127.0.0.1", NAMES, "localhost", True),
        ("127.0.0.1", NAMES, "configured:1", True),
        ("127.0.0.1", NAMES, "rebound.example", False),
        ("127.0.0.1", NAMES, "logs.example.net.rebound.example", False),
        ("127.0.0.1", NAMES, "203.0.113.7", False),
        ("127.0.0.1", NAMES, "", False),
        ("127.0.0.1", (), "logs.example.net", False),
        ("::1", ("203.0.113.7",), "203.0.113.7:443", True),
        ("0.0.0.0", NAMES, "logs.example.net:9464", True),
        ("0.0.0.0", NAMES, "localhost:9464", True),
        ("0.0.0.0", NAMES, "203.0.113.7:9464", True),
        ("0.0.0.0", NAMES, "[2001:db8::1]:9464", True),
        ("0.0.0.0", NAMES, "rebound.example", False),
        ("0.0.0.0", NAMES, "", False),
        ("0.0.0.0", (), "rebound.example", True),
    ],
)
def test_names_that_are_listed_are_answered_to_and_no_others(
    bound: str, names: tuple[str, ...], header: str, allowed: bool
) -> None:
    assert Hosts(bound, "configured", names).allow(header) is allowed


def test_an_address_without_a_host_has_no_name() -> None:
    assert not Hosts("::", "", NAMES).allow("")


async def test_both_programs_answer_to_admin_hosts(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    receiving = msgspec.structs.replace(
        installation.receiver_config(), admin=ReceiversAdmin(address="127.0.0.1:0", hosts=NAMES)
    )
    sending = msgspec.structs.replace(
        installation.forwarder_config("127.0.0.1:1"), admin=ForwardersAdmin(address="127.0.0.1:0", hosts=NAMES)
    )
    async with running(receiving) as service, forwarding(sending) as forwarder, aiohttp.ClientSession() as client:
        for address in (service.admin_address, forwarder.admin_address):
            for host, status in (("logs.example.net", 200), ("rebound.example", 421)):
                async with client.get(f"http://{address}/healthz", headers={"Host": host}) as answer:
                    assert answer.status == status
