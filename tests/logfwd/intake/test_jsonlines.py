"""Lines to records, with `json.loads` as the oracle and every trap of line validation under its own name."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logfwd.intake import jsonlines
from logfwd.intake.jsonlines import Lines
from logfwd.sources.formats.parts import MIN_RECORD_BYTES

LIMIT = 512 * 1024
GOOD = b'{"a":1}\n'


def split(block: bytes, invalid: Literal["wrap", "drop"] = "wrap", max_record_bytes: int = LIMIT) -> Lines:
    lines = jsonlines.split(block, invalid=invalid, max_record_bytes=max_record_bytes)
    return lines._replace(values=[bytes(value) for value in lines.values])


def refused(line: bytes) -> None:
    """Among good lines, this one is invalid and nothing else is."""
    lines = split(GOOD + line + b"\n" + GOOD, "drop")
    assert lines == Lines([b'{"a":1}', b'{"a":1}'], invalid=1)


def accepted(line: bytes, record: bytes | None = None) -> None:
    lines = split(GOOD + line + b"\n" + GOOD)
    assert lines == Lines([b'{"a":1}', line if record is None else record, b'{"a":1}'])


def unwrapped(values: Any) -> bytes:
    """The line that wrapped parts hold together."""
    parts = [json.loads(value) for value in values]
    assert all(part["invalid"] is True for part in parts)
    if len(parts) > 1:
        assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
        assert {part["parts"] for part in parts} == {len(parts)}
        assert len({part["line_id"] for part in parts}) == 1
    else:
        assert set(parts[0]) <= {"message", "message_base64", "invalid"}
    if "message_base64" in parts[0]:
        assert b"".join(base64.b64decode(part["message_base64"], validate=True) for part in parts) == base64.b64decode(
            "".join(part["message_base64"] for part in parts), validate=True
        )
        return b"".join(base64.b64decode(part["message_base64"]) for part in parts)
    return "".join(part["message"] for part in parts).encode()


def oracle(line: bytes) -> bool:
    """Is this line one JSON object, in the strictest common reading?"""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(line.decode(), parse_constant=no_constant, parse_int=str)
    except (ValueError, RecursionError):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False  # a lone surrogate
    return isinstance(value, dict)


def test_good_lines_are_records_byte_for_byte() -> None:
    block = b'{"a": 1.50, "b":"\\u00e9"}\n{}\n{"deep":[{"x":[]}]}\n'
    assert split(block) == Lines(block.splitlines())


def test_no_bytes_are_no_records() -> None:
    assert split(b"") == Lines([])


def test_blank_lines_are_skipped_and_are_not_invalid() -> None:
    assert split(b'\n{"a":1}\n \t\r\n\r\n{"a":2}\n\n') == Lines([b'{"a":1}', b'{"a":2}'], blank=4)


def test_blanks_and_cr_around_a_record_are_not_kept() -> None:
    assert split(b'{"a":1}\r\n{"a":2}\r\n') == Lines([b'{"a":1}', b'{"a":2}'])
    accepted(b' \t{"a": 2 } \r', b'{"a": 2 }')


def test_an_unfinished_last_line_is_a_line() -> None:
    assert split(b'{"a":1}\n{"a":2}') == Lines([b'{"a":1}', b'{"a":2}'])
    assert split(b'{"a":1}\n{"a":') == Lines([b'{"a":1}', b'{"message":"{\\"a\\":","invalid":true}'], invalid=1)


def test_bad_utf8_inside_a_string_is_invalid() -> None:
    refused(b'{"a":"\xff"}')
    refused(b'{"\xc3":1}')
    refused(b'{"a":"\xed\xa0\x80"}')  # a surrogate, encoded
    refused(b'{"a":"\xc0\xaf"}')  # overlong


def test_good_utf8_next_to_bad_utf8_is_kept() -> None:
    accepted('{"a":"žluťoučký 🐎"}'.encode())
    block = '{"a":"é"}\n'.encode() + b'{"a":"\xff"}\n' + '{"b":"€"}\n'.encode()
    assert split(block, "drop") == Lines(['{"a":"é"}'.encode(), '{"b":"€"}'.encode()], invalid=1)


@pytest.mark.parametrize("line", [b"1", b"[1]", b'"text"', b"true", b"null", b"[{}]", b"-0.5"])
def test_a_value_that_is_not_an_object_is_invalid(line: bytes) -> None:
    refused(line)


@pytest.mark.parametrize("line", [b"{}{}", b"{} {}", b"{}\r{}", b"{},{}", b'{"a":1}\t{"b":2}'])
def test_two_objects_on_one_line_are_invalid(line: bytes) -> None:
    refused(line)


def test_one_object_over_two_lines_is_two_invalid_lines() -> None:
    assert split(b'{"a":\n1}\n', "drop") == Lines([], invalid=2)
    assert split(b'{"a":[\n{},\n{}]}\n', "drop") == Lines([], invalid=3)


def test_two_on_one_line_do_not_make_up_for_one_over_two_lines() -> None:
    block = b'{}\n {"a":1\n}{"b":1}\n'  # three values, three newlines
    assert split(block, "drop") == Lines([b"{}"], invalid=2)
    assert split(b'{"a":1}{"b":2}\n{"c":\n3}\n', "drop") == Lines([], invalid=3)


def test_two_on_one_line_do_not_make_up_for_a_blank_line() -> None:
    assert split(b"{}{}\n\n", "drop") == Lines([], invalid=1, blank=1)


def test_one_bad_line_does_not_fail_its_block() -> None:
    assert split(GOOD * 100 + b"oops\n" + GOOD * 100, "drop") == Lines([b'{"a":1}'] * 200, invalid=1)


@pytest.mark.parametrize("depth", [5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_deep_nesting_is_invalid_and_does_no_harm(depth: int, opening: bytes, closing: bytes) -> None:
    line = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"
    lines = split(GOOD + line + b"\n" + GOOD, max_record_bytes=4 << 20)
    assert lines.invalid == 1
    assert lines.values[0] == lines.values[2] == b'{"a":1}'
    assert unwrapped(lines.values[1:2]) == line


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\\x"}',
        b'{"a":"\t"}',
        b'{"a":"\0"}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1,}',
        b'{"a"}',
        b'{"a":1}#',
        b'{"a":1}\0',
        b"\xef\xbb\xbf{}",
        b"{",
        b"}",
        b"\x0c{}",
        b"plain text",
    ],
)
def test_what_only_looks_like_json_is_invalid(line: bytes) -> None:
    refused(line)


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\udc00\\ud800", b"\\ud800x"])
def test_a_lone_surrogate_is_invalid(escape: bytes) -> None:
    refused(b'{"a":"' + escape + b'"}')


def test_numbers_of_any_size_are_valid() -> None:
    accepted(b'{"a":' + b"9" * 5000 + b"}")
    accepted(b'{"a":1e999999}')


def test_an_invalid_line_is_wrapped_with_all_but_its_line_end() -> None:
    lines = split(b'  at f("x") \\ y\t\r\n')
    assert lines == Lines([b'{"message":"  at f(\\"x\\") \\\\ y\\t","invalid":true}'], invalid=1)


def test_a_line_that_is_not_utf8_is_wrapped_as_base64() -> None:
    assert split(b"\xff\xfe\n") == Lines([b'{"message_base64":"//4=","invalid":true}'], invalid=1)


def test_dropped_lines_are_counted() -> None:
    assert split(b"one\ntwo\n{}\n", "drop") == Lines([b"{}"], invalid=2)


def test_a_line_of_exactly_the_limit_is_a_record() -> None:
    fits = b'{"a":"' + b"x" * (MIN_RECORD_BYTES - 8) + b'"}'
    assert len(fits) == MIN_RECORD_BYTES
    for block in (fits + b"\n", GOOD * 50 + fits + b"\n" + GOOD, GOOD + b" " + fits + b" \r\n"):
        lines = split(block, max_record_bytes=MIN_RECORD_BYTES)
        assert lines.invalid == 0
        assert fits in lines.values
    for block in (fits[:-2] + b'x"}\n', GOOD * 50 + fits[:-2] + b'x"}\n' + GOOD):
        assert split(block, "drop", max_record_bytes=MIN_RECORD_BYTES).invalid == 1


def test_an_overlong_line_is_split_into_numbered_parts_and_never_truncated() -> None:
    line = b'{"a":"' + b"x" * 500 + b'"}'
    lines = split(GOOD + line + b"\n" + GOOD, max_record_bytes=MIN_RECORD_BYTES)
    assert lines.invalid == 1
    assert lines.values[0] == lines.values[-1] == b'{"a":1}'
    assert len(lines.values) == 2 + 4
    assert unwrapped(lines.values[1:-1]) == line


def test_parts_are_as_few_as_they_can_be() -> None:
    assert len(split(b"x" * 1_000_000 + b"\n").values) == 2
    fields = b'{"message":"","invalid":true,"part":1000,"parts":1000,"line_id":"0123456789abcdef"}'
    room = (MIN_RECORD_BYTES - len(fields)) // 4 * 4
    for length in range(1000, 2000, 7):
        parts = split(b"x" * length + b"\n", max_record_bytes=MIN_RECORD_BYTES).values
        assert len(parts) == -(-length // room)


@settings(max_examples=200)
@given(
    st.text(st.sampled_from('aé€🐎"\\\x01\x7f\t\u2028'), min_size=80, max_size=2000).filter(
        lambda text: text.strip() != ""
    ),
    st.integers(MIN_RECORD_BYTES, 1000),
)
def test_parts_of_text_fit_after_escaping_and_give_back_the_line(text: str, limit: int) -> None:
    lines = split(text.encode() + b"\n", max_record_bytes=limit)
    assert lines.invalid == 1
    assert max(map(len, lines.values)) <= limit
    assert unwrapped(lines.values) == text.encode()


@given(st.binary(min_size=100, max_size=3000), st.integers(MIN_RECORD_BYTES, 1000))
def test_parts_of_bytes_fit_and_are_valid_base64_alone_and_joined(data: bytes, limit: int) -> None:
    line = b"\xff" + data.replace(b"\n", b"")
    lines = split(line + b"\n", max_record_bytes=limit)
    assert max(map(len, lines.values)) <= limit
    assert unwrapped(lines.values) == line.removesuffix(b"\r")


def test_a_limit_without_room_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="the least is 256"):
        split(GOOD, max_record_bytes=MIN_RECORD_BYTES - 1)


tokens = st.sampled_from(r'{ } [ ] " a : , 1 - . e \ u00e9 "a" {"a": {} null NaN "\ud800" é'.encode().split(b" "))
others = st.sampled_from([b" ", b"\r", b"\t", b"\n", b"\xff", b"\0", b"\x0c", b"}\n{"])
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
json_line = st.builds(
    lambda value, ascii_only, blanks: blanks + json.dumps(value, ensure_ascii=ascii_only).encode() + blanks,
    st.dictionaries(st.text(max_size=3), json_value, max_size=3) | json_value,
    st.booleans(),
    st.sampled_from([b"", b"", b" ", b"\r"]),
)
any_line = json_line | st.lists(tokens | others, max_size=12).map(b"".join) | st.binary(max_size=20)


@settings(max_examples=600)
@given(st.lists(any_line, max_size=6).map(lambda lines: b"".join(line + b"\n" for line in lines)))
@example(b'{}\n {"a":1\n}{"b":1}\n')
@example(b"{}\x00\n")
def test_every_line_is_judged_as_the_oracle_does(block: bytes) -> None:
    lines = block.split(b"\n")[:-1]
    kept = [line.strip(b" \t\r") for line in lines]
    valid = [line for line in kept if line and oracle(line)]
    blank = kept.count(b"")
    dropping = split(block, "drop")
    assert dropping == Lines(valid, invalid=len(kept) - len(valid) - blank, blank=blank)
    wrapping = split(block)
    assert (wrapping.invalid, wrapping.blank) == (dropping.invalid, blank)
    restored = [
        value if oracle(line) else unwrapped([value])
        for value, line in zip(wrapping.values, filter(None, kept), strict=True)
    ]
    originals = [line.strip(b" \t\r") if oracle(line.strip(b" \t\r")) else line.removesuffix(b"\r") for line in lines]
    assert restored == [original for original, line in zip(originals, kept, strict=True) if line]
