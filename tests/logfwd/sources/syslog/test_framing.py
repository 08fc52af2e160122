"""Messages on a connection: whole, byte by byte, and out of step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfwd.sources.syslog.framing import Framer

MOST = 100


def counted(messages: list[bytes]) -> bytes:
    return b"".join(b"%d %b" % (len(message), message) for message in messages)


def by_lines(messages: list[bytes]) -> bytes:
    return b"".join(message + b"\n" for message in messages)


_MESSAGE = st.binary(min_size=1, max_size=MOST)
_LINE = st.binary(max_size=MOST - 1).map(lambda text: b"<" + text.replace(b"\n", b""))


@given(st.lists(_MESSAGE, min_size=1), st.lists(st.integers(1, 50)))
def test_counted_messages_are_the_same_however_they_come(messages: list[bytes], sizes: list[int]) -> None:
    assert fed(counted(messages), sizes) == messages


@given(st.lists(_LINE, min_size=1), st.lists(st.integers(1, 50)))
def test_lines_are_the_same_however_they_come(messages: list[bytes], sizes: list[int]) -> None:
    assert fed(by_lines(messages), sizes) == messages


def fed(data: bytes, sizes: list[int]) -> list[bytes]:
    framer, found = Framer(MOST), list[bytes]()
    for size in sizes:
        found += framer.feed(data[:size])
        data = data[size:]
    found += framer.feed(data)
    assert not framer.breach
    assert not framer.is_unfinished
    assert framer.end() == b""
    return found


@given(st.binary(max_size=500), st.lists(st.integers(1, 50)))
def test_any_bytes_give_messages_within_the_limit_or_a_breach(data: bytes, sizes: list[int]) -> None:
    framer = Framer(MOST)
    for size in [*sizes, len(data)]:
        messages = framer.feed(data[:size])
        assert all(0 < len(message) <= MOST for message in messages)
        data = data[size:]
    assert framer.breach in ("", "first_byte", "octet_count", "too_long")
    assert len(framer.end()) <= MOST + 8


@pytest.mark.parametrize("first", [b"\n", b" ", b"0", b"G", b"\x16", b"{", b"\xff", b"-"])
def test_the_first_byte_is_a_digit_or_an_angle(first: bytes) -> None:
    framer = Framer(MOST)
    assert framer.feed(first + b"3 <1>") == []
    assert framer.breach == "first_byte"


def test_the_first_byte_decides_and_is_kept() -> None:
    framer = Framer(MOST)
    assert framer.feed(b"<1>a\n5 <1>b\n\n3 x") == [b"<1>a", b"5 <1>b"], "lines, whatever they begin with"
    assert not framer.counts_octets
    assert framer.end() == b"3 x"
    framer = Framer(MOST)
    assert framer.feed(b"4 <1>a5 <1>\nb4 <") == [b"<1>a", b"<1>\nb"]
    assert framer.counts_octets
    assert framer.end() == b"4 <"


@pytest.mark.parametrize(
    ("then", "breach"),
    [
        (b"<1>a\n", "octet_count"),
        (b" 4 <1>a", "octet_count"),
        (b"04 <1>a", "octet_count"),
        (b"0 ", "octet_count"),
        (b"4x <1>a", "octet_count"),
        (b"99999999", "octet_count"),
        (b"101 ", "too_long"),
        (b"9999999 ", "too_long"),
    ],
)
def test_a_connection_out_of_step_ends_with_what_came_before(then: bytes, breach: str) -> None:
    framer = Framer(MOST)
    assert framer.feed(b"4 <1>a" + then) == [b"<1>a"]
    assert framer.breach == breach
    assert framer.feed(b"4 <1>a") == []
    assert not framer.is_unfinished


def test_a_line_that_is_too_long_ends_the_connection_before_it_is_whole() -> None:
    framer = Framer(MOST)
    assert framer.feed(b"<1>a\n<" + b"x" * MOST) == [b"<1>a"]
    assert framer.breach == "too_long"
    framer = Framer(MOST)
    assert framer.feed(b"<1>a\n<" + b"x" * MOST + b"\n<1>b\n") == [b"<1>a"]
    assert framer.breach == "too_long"
