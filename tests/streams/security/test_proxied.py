"""Headers of PROXY protocol, version 2: what they say, and which are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import HandshakeFailed
from streams.security.proxied import MOST_BYTES, SIGNATURE, Introduced, parse
from tests.support.proxied import LOCAL, block, header, raw

UNIX = bytes(216)
TLV = b"\x03\x00\x04crc!"
V4, V4_BLOCK = block("192.0.2.7")
V6, V6_BLOCK = block("2001:db8::7")


@pytest.mark.parametrize(
    ("data", "client", "is_local"),
    [
        (header("192.0.2.7", 40_001), ("192.0.2.7", 40_001), False),
        (header("2001:db8::7", 443), ("2001:db8::7", 443), False),
        (header("192.0.2.7", tlvs=TLV), ("192.0.2.7", 40_000), False),
        (raw(0x21, 0x00, b""), None, False),
        (raw(0x21, 0x00, TLV), None, False),
        (raw(0x21, 0x31, UNIX), None, False),
        (LOCAL, None, True),
        (raw(0x20, V4, V4_BLOCK), None, True),
        (raw(0x20, 0xEE, b"?"), None, True),  # what LOCAL is followed by is to be passed over, whatever it is
        (header("192.0.2.7", tlvs=bytes(MOST_BYTES - 28)), ("192.0.2.7", 40_000), False),
    ],
)
def test_a_header_says_where_the_client_is_once_it_is_whole(
    data: bytes, client: tuple[str, int] | None, is_local: bool
) -> None:
    whole = Introduced(len(data), client, is_local)
    assert [parse(data[:size]) for size in range(len(data))] == [None] * len(data)
    assert parse(data) == whole
    assert parse(data + b"\x16\x03\x01") == whole


WRONG = {
    "TLS": (b"\x16\x03\x01\x05\xa4\x01", "no_proxy_header", "no header"),
    "version 1": (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 7443\r\n", "no_proxy_header", "version 1"),
    "another signature": (SIGNATURE[:-1] + b"\r", "no_proxy_header", "no header"),
    "another version": (raw(0x31, V4, V4_BLOCK), "proxy_header", "0x31"),
    "another command": (raw(0x22, V4, V4_BLOCK), "proxy_header", "0x22"),
    "another family": (raw(0x21, 0x41, V4_BLOCK), "proxy_header", "0x41"),
    "datagrams": (raw(0x21, 0x12, V4_BLOCK), "proxy_header", "0x12"),
    "no transport": (raw(0x21, 0x10, V4_BLOCK), "proxy_header", "0x10"),
    "too few bytes": (raw(0x21, V4, V4_BLOCK[:-1]), "proxy_header", "too few"),
    "too few for IPv6": (raw(0x21, V6, V4_BLOCK), "proxy_header", "too few"),
    "too few for a path": (raw(0x21, 0x31, UNIX[:-1]), "proxy_header", "too few"),
    "too long": (header("192.0.2.7", tlvs=bytes(MOST_BYTES - 27)), "proxy_header", "more than 536"),
    "LOCAL and too long": (raw(0x20, 0x00, bytes(MOST_BYTES)), "proxy_header", "more than 536"),
    "a length that never comes": (raw(0x21, V4, b"", size=65_535), "proxy_header", "more than 536"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_such_header_is_refused_with_a_reason(name: str) -> None:
    data, reason, text = WRONG[name]
    with pytest.raises(HandshakeFailed, match=text) as refused:
        parse(data)
    assert refused.value.reason == reason


def outcome(data: bytes) -> Introduced | str | None:
    try:
        return parse(data)
    except HandshakeFailed as error:
        return error.reason


HEADERS = st.builds(
    raw,
    st.sampled_from((0x20, 0x21, 0x11, 0x2F)),
    st.sampled_from((0x00, 0x11, 0x12, 0x21, 0x31, 0xFF)),
    st.binary(max_size=600),
    size=st.none() | st.integers(0, 600),
)
SPOILT = st.tuples(HEADERS, st.integers(0, 15), st.integers(0, 255)).map(
    lambda drawn: drawn[0][: drawn[1]] + bytes((drawn[2],)) + drawn[0][drawn[1] + 1 :]
)


@given(st.binary(max_size=700) | HEADERS | SPOILT)
def test_any_bytes_get_one_answer_that_more_of_them_do_not_change(data: bytes) -> None:
    answers = [outcome(data[:size]) for size in range(len(data) + 1)]
    final = [answer for answer in answers if answer is not None]
    assert len(set(final)) <= 1
    assert answers == [None] * (len(answers) - len(final)) + final
    assert all(answer is not None for answer in answers[MOST_BYTES:])
    for answer in final:
        if isinstance(answer, Introduced):
            assert 16 <= answer.size <= min(len(data), MOST_BYTES)
