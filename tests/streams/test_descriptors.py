"""Waiting for file descriptors without an event loop."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from streams.descriptors import raise_limit, wait_readable


@pytest.fixture
def many() -> Iterator[int]:
    """How many files may be open, which is more than usual."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield raise_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_those_that_can_be_read_are_found_whatever_their_number(many: int) -> None:
    read, write = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD, min(many - 10, 2000))
    quiet, other = socket.socketpair()
    try:
        assert wait_readable([high, quiet], 0) == []
        os.write(write, b"x")
        assert wait_readable([high, quiet], 30) == [high]
        other.send(b"x")
        assert set(wait_readable([quiet, high], None)) == {quiet, high}
    finally:
        for each in (read, write, high):
            os.close(each)
        quiet.close()
        other.close()
