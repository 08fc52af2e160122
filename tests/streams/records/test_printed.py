"""Records as lines of output."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.records.printed import for_terminal, printed


def test_an_object_is_printed_as_it_is_on_one_line() -> None:
    assert printed(b'{"a": 1.50}') == b'{"a": 1.50}'
    assert printed(b'{"a":\n1}') == b'{"a": 1}'


@pytest.mark.parametrize("record", [b"", b"text", b"[1]", b"1", b"{", b'{"a":"\xff"}', b"{}{}", b"{" * 100_000])
def test_anything_else_is_printed_in_base64(record: bytes) -> None:
    assert (
        printed(record)
        == json.dumps({"record_base64": base64.b64encode(record).decode()}, separators=(",", ":")).encode()
    )


@given(st.binary())
def test_every_record_is_one_line_of_json(record: bytes) -> None:
    line = printed(memoryview(record))
    assert b"\n" not in line
    assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize(
    "text", ["\x9b2J", "\x7f", "\u202eabc", "\U000e0041", "é – 日本", '\\u001b[31m \\" \\\\'], ids=ascii
)
def test_a_terminal_gets_the_same_record_and_nothing_that_it_obeys(text: str) -> None:
    line = printed(f'{{"message":\t"{text}"\r}}'.encode())
    shown = for_terminal(line)
    assert json.loads(shown) == json.loads(line)
    assert shown.decode().isprintable()


def test_a_terminal_gets_a_printable_record_as_it_is() -> None:
    assert for_terminal('{"a": "é"}'.encode()) == '{"a": "é"}'.encode()
