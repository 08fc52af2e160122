"""Addresses as people write them."""

from __future__ import annotations

import pytest

from streams.addresses import is_local, split_address


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:80", True),
        ("127.8.9.1:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("unix:/run/in.sock", True),
        (":80", False),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("localhost.example.net:80", False),
    ],
)
def test_only_loopback_and_unix_sockets_are_local(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_a_url_is_no_address_and_said_to_be_one() -> None:
    with pytest.raises(ValueError, match=r"is a URL; write HOST:PORT$"):
        split_address("https://localhost:7443")
