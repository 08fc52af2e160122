"""Names are resolved beside the loop, and whatever a resolver does, the program goes on and ends."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from streams import names

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 7443))


class Resolver:
    """Stands for the system's: it hangs until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.answers = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *, flags: int, **_: Any) -> list[names.AddressInfo]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        self.asked += 1
        self.answers.wait(60)
        return [ADDRESS]


async def test_an_address_needs_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_resolver(*_: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(names, "_look_up", no_resolver)
    (found,) = await names.addresses("127.0.0.1", 7443)
    assert found[4] == ("127.0.0.1", 7443)


async def test_who_asks_for_the_same_name_shares_a_thread_and_may_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await names.addresses("logs.test", 7443)
    waiting = [asyncio.create_task(names.addresses("logs.test", 7443)) for _ in range(3)]
    await asyncio.sleep(0)
    resolver.answers.set()
    assert await asyncio.gather(*waiting) == [[ADDRESS]] * 3
    assert resolver.asked == 1
    await names.addresses("logs.test", 7443)
    assert resolver.asked == 2, "a name is resolved anew each time"


async def test_a_name_that_does_not_exist_is_an_error_of_who_asked() -> None:
    with pytest.raises(OSError, match=r"not known|resolution|address"):
        await names.addresses("no-such-host.invalid", 7443)
    with pytest.raises((OSError, UnicodeError)):
        await names.addresses("x" * 300, 7443)


def test_a_resolver_that_hangs_does_not_keep_a_program_from_ending() -> None:
    program = """
import asyncio, socket, time
from streams import names
def hangs(*_, flags=0, **__):
    if flags: raise socket.gaierror
    time.sleep(1000)
socket.getaddrinfo = hangs
async def main():
    try:
        await asyncio.wait_for(names.addresses("logs.test", 1), 0.1)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "gave up\n"), done.stderr


@pytest.mark.parametrize(
    ("host", "proven"),
    [
        ("logs.example.net", "logs.example.net"),
        ("logs.example.net.", "logs.example.net"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_certificate_names_a_host_without_its_last_dot_and_an_address_without_its_zone(
    host: str, proven: str
) -> None:
    assert names.proven_name(host) == proven
