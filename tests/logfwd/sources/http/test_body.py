"""Bodies become parts: the same records whatever the parts' size, and from every end of a part on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfwd.intake import jsonlines
from logfwd.sources.http.answers import Refused
from logfwd.sources.http.body import (
    PIECE_COMMAS,
    BodyType,
    Kind,
    Part,
    _records,
    body_type,
    digests,
    first_invalid,
    parts,
    record_count,
)

LINES, JSON, TEXT = (BodyType(kind) for kind in Kind)
RECORD_BYTES = 1 << 20


def cut(body: bytes, kind: BodyType, *, start: int = 0, block_bytes: int = 1 << 20) -> list[Part]:
    return list(parts(body, kind, start=start, block_bytes=block_bytes, max_record_bytes=RECORD_BYTES))


def records(found: list[Part]) -> list[bytes]:
    """What becomes of the parts where they are sealed."""
    lines = [
        jsonlines.split(part.data, invalid="wrap", max_record_bytes=RECORD_BYTES, ends=part.ends) for part in found
    ]
    return [bytes(value) for each in lines for value in each.values]


def refusal(body: bytes, kind: BodyType) -> Refused:
    with pytest.raises(Refused) as caught:
        cut(body, kind)
    return caught.value


VALUES = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5) | st.none(), max_size=3)
BLANKS = st.sampled_from(["", " ", "\n", "\r\n", " \t\n "])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, BodyType, list[bytes]]:
    """A body, its type, and its records."""
    values = draw(st.lists(VALUES, min_size=1, max_size=8))
    kind = draw(st.sampled_from(["lines", "array", "object", "lines as JSON"]))
    if kind == "object":
        text = draw(BLANKS) + json.dumps(values[0], indent=draw(st.sampled_from([None, 1])))
        return (text + draw(BLANKS)).encode(), JSON, [text.strip().encode()]
    if kind == "array":
        made = [json.dumps(value, indent=draw(st.sampled_from([None, 1]))) for value in values]
        between = [draw(BLANKS) + "," + draw(BLANKS) for _ in made[1:]]
        inner = "".join(chain.from_iterable(zip(made, [*between, ""], strict=True)))
        text = draw(BLANKS) + "[" + draw(BLANKS) + inner + draw(BLANKS) + "]" + draw(BLANKS)
        return text.encode(), JSON, [each.encode() for each in made]
    made = [json.dumps(value) for value in values]
    text = "".join(each + draw(st.sampled_from(["\n", "\r\n", "\n\n"])) for each in made)
    if draw(st.booleans()):
        text = text.rstrip()
    return text.encode(), JSON if kind == "lines as JSON" else LINES, [each.encode() for each in made]


@given(bodies(), st.integers(1, 100))
def test_every_body_gives_its_records_and_may_be_continued_after_every_part(
    made: tuple[bytes, BodyType, list[bytes]], block_bytes: int
) -> None:
    body, kind, expected = made
    found = cut(body, kind, block_bytes=block_bytes)
    assert records(found) == expected
    assert found[-1].end == len(body)
    for index, part in enumerate(found):
        rest = cut(body, kind, start=part.end, block_bytes=2 * block_bytes)
        assert records(found[: index + 1]) + records(rest) == expected


ARRAYS = st.text(alphabet='[]{},:"\\a1 \n', max_size=30)


@given(ARRAYS, st.integers(1, 12))
def test_what_is_not_an_array_is_refused_in_pieces_of_every_size(text: str, size: int) -> None:
    """The decoder, given the whole body, is the oracle."""
    body = f"[{text}]".encode()
    try:
        expected = [bytes(each) for each in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.DecodeError:
        expected = None
    if expected is None:
        with pytest.raises(Refused) as refused:
            cut(body, JSON, block_bytes=size)
        assert refused.value.answer.status == 400
    else:
        assert [each for part in cut(body, JSON, block_bytes=size) for each in _records(part)] == expected


def test_a_body_has_a_limited_number_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, accepted in ((5, True), (4, False)):
        monkeypatch.setattr("logfwd.sources.http.body.MOST_RECORDS", most)
        for body, kind in ((b"1\n" * 5, LINES), (b"1\n" * 5, TEXT), (b"[1,2,3,4,5]", JSON), (b"{}\n" * 5, JSON)):
            if accepted:
                assert len(records(cut(body, kind))) == 5
            else:
                assert refusal(body, kind).answer.status == 413


@given(bodies(), st.integers(30, 100))
def test_a_part_is_too_large_only_for_a_single_record(
    made: tuple[bytes, BodyType, list[bytes]], block_bytes: int
) -> None:
    body, kind, _ = made
    for part in cut(body, kind, block_bytes=block_bytes):
        assert len(part.data) <= block_bytes + 1 or len(records([part])) == 1


@given(st.binary(max_size=60), st.sampled_from([LINES, JSON, TEXT]), st.integers(1, 20))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes, kind: BodyType, block_bytes: int) -> None:
    refused = None
    try:
        found = cut(body, kind, block_bytes=block_bytes)
        assert not found or found[-1].end == len(body)
    except Refused as error:
        refused = error
    assert refused is None or (kind, refused.answer.status) == (JSON, 400)


def test_lines_of_text_are_messages_and_blank_ones_nothing() -> None:
    found = cut('début\r\n\n  \n{"a":1}\nlast'.encode(), TEXT)
    assert [json.loads(record) for record in records(found)] == [
        {"message": "début"},
        {"message": '{"a":1}'},
        {"message": "last"},
    ]
    assert records(cut(b"\xe9\xff\n", BodyType(Kind.TEXT, "iso8859-1"))) == ['{"message":"éÿ"}'.encode()]
    assert records(cut(b"a\xff\n", TEXT)) == ['{"message":"a\ufffd"}'.encode()]


def test_text_that_is_too_long_for_a_record_is_wrapped_in_parts() -> None:
    (part,) = parts(b"x" * 1000, TEXT, block_bytes=10_000, max_record_bytes=300)
    found = jsonlines.split(part.data, invalid="wrap", max_record_bytes=300)
    assert "".join(json.loads(bytes(value))["message"] for value in found.values) == "x" * 1000


def test_a_byte_order_mark_is_skipped() -> None:
    for kind, rest in ((LINES, b'{"a":1}\n'), (JSON, b'[{"a":1}]'), (JSON, b'{"a":1}')):
        assert records(cut(b"\xef\xbb\xbf" + rest, kind)) == [b'{"a":1}']
    assert records(cut(b"\xef\xbb\xbfa", TEXT)) == [b'{"message":"a"}']


@pytest.mark.parametrize("body", [b"", b"  ", b"nothing", b'"text"', b"1", b"[1,", b'{"a":', b"[] []", b"[{},]"])
def test_a_json_body_that_is_not_json_is_refused(body: bytes) -> None:
    refused = refusal(body, JSON)
    assert refused.answer.status == 400
    assert b'"code":"malformed"' in refused.answer.body


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b'{"a":' * 100_000])
def test_what_is_nested_too_deeply_is_refused(body: bytes) -> None:
    assert b"nested too deeply" in refusal(body, JSON).answer.body


def test_a_line_that_is_nested_too_deeply_is_invalid_and_others_are_not() -> None:
    body = b'{"a":1}\n' + b'{"a":' * 100_000 + b'\n{"b":1}\n'
    found = records(cut(body, LINES))
    assert (found[0], found[-1]) == (b'{"a":1}', b'{"b":1}')
    assert json.loads(found[1])["invalid"] is True


def test_elements_that_are_not_objects_are_invalid_records() -> None:
    assert records(cut(b'[1, "x", {"a":1}, [2]]', JSON)) == [
        b'{"message":"1","invalid":true}',
        b'{"message":"\\"x\\"","invalid":true}',
        b'{"a":1}',
        b'{"message":"[2]","invalid":true}',
    ]


def test_tiny_elements_come_a_few_thousand_at_a_time() -> None:
    body = b"[" + b"1," * 50_000 + b"1]"
    found = cut(body, JSON)
    assert sum(map(record_count, found)) == 50_001
    assert max(map(record_count, found)) <= PIECE_COMMAS + 2


def invalid_record(body: bytes, kind: BodyType) -> int | None:
    def count_invalid(data: bytes, ends: Sequence[int] | None, max_record_bytes: int) -> int:
        return jsonlines.split(data, invalid="drop", max_record_bytes=max_record_bytes, ends=ends).invalid

    before = 0
    for part in cut(body, kind, block_bytes=8):
        if (index := first_invalid(part, 1000, count_invalid)) is not None:
            return before + index
        before += record_count(part)
    return None


def test_the_first_invalid_record_is_found_by_its_index() -> None:
    assert invalid_record(b'{"a":1}\n\n{"b":2}\n', LINES) is None
    assert invalid_record(b'{"a":1}\n\noops\n{"b":2}\n', LINES) == 2
    assert invalid_record(b'[{"a":1},{"b":\n1},7,{"c":1}]', JSON) == 2
    assert invalid_record(b'{"a":1}\n{"b":"' + b"x" * 1000 + b'"}\n', LINES) == 1


def test_a_digest_is_of_the_bytes_and_of_how_they_are_read() -> None:
    body = b'{"a":1}\n{"a":2}\n'
    first, second = digests(body, LINES, [8, 16])
    assert list(digests(body[:8], LINES, [8])) == [first]
    assert list(digests(body, LINES, [16])) == [second]
    assert len({first, second, *digests(body, TEXT, [16]), *digests(body, JSON, [16])}) == 4


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/x-ndjson", LINES),
        ("Application/JSON; charset=UTF-8", JSON),
        ("", JSON),
        ("text/plain", TEXT),
        ('text/plain; charset="latin-1"', BodyType(Kind.TEXT, "iso8859-1")),
    ],
)
def test_content_types(header: str, expected: BodyType) -> None:
    assert body_type(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "text/html",
        "application/x-www-form-urlencoded",
        "text/plain; charset=utf-16",
        "application/json;charset=latin-1",
        "text/plain;charset=\0",
    ],
)
def test_other_content_types_are_refused(header: str) -> None:
    with pytest.raises(Refused) as caught:
        body_type(header)
    assert caught.value.answer.status == 415
