"""What a stream adds to its records: constant fields, keys and headers; framed fast, and as if written one by one."""

from __future__ import annotations

import json
from array import array
from itertools import accumulate
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logfwd.definition import members
from logfwd.intake import jsonlines
from logfwd.intake.batches import Rules
from logfwd.intake.seal import Sealed, seal
from logfwd.intake.shape import MAX_KEY_BYTES, PLAIN, Shape
from logfwd.sources.position import Block
from streams.records import batch as recordbatch
from streams.records.batch import Codec, Record
from streams.records.body import NO_HEADERS, header_fields, headers_of

NOW_MS = 1_700_000_000_000
KIB = 1024
HOST = Shape(members({"host": "web-1"}))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
some_objects = st.dictionaries(st.sampled_from(["host", "a", "é", "", "key"]), json_values, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False).encode()
)
some_lines = st.lists(
    st.one_of(
        some_objects,
        some_objects.map(lambda line: b" " + line + b"\t"),
        some_objects.map(lambda line: line + b"\r"),
        st.sampled_from(
            [b"{}", b"{ }", b'{ "a":1}', b"", b" ", b"{", b"text", b"[1]", b'["a"]', b'""', b"{}{}", b"\xff"]
        ),
        st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
    ),
    max_size=8,
)
some_fields = st.dictionaries(
    st.sampled_from(["host", "env", 'a"b', "é"]), st.text(max_size=6) | st.integers(0, 9) | st.booleans(), max_size=3
)


RULES = Rules("wrap", 512 * KIB, 50_000, 900 * KIB, 8 * KIB * KIB, Codec.NONE, HOST)


def sealed(*blocks: bytes | Block, **rules: Any) -> Sealed:
    given_blocks = [Block(block, NOW_MS) if isinstance(block, bytes) else block for block in blocks]
    return seal(given_blocks, RULES._replace(**rules), timestamp_ms=NOW_MS)


def records(result: Sealed) -> list[Record]:
    return [each for batch in result.batches for each in recordbatch.iterate(batch.payload, max_bytes=64 * KIB * KIB)]


def values(result: Sealed) -> list[bytes | None]:
    return [record.value for record in records(result)]


def keys(result: Sealed) -> list[bytes | None]:
    return [record.key for record in records(result)]


def pairs(text: bytes | None) -> list[tuple[str, Any]]:
    """The members of an object in their order, duplicates included."""
    found: list[tuple[str, Any]] = json.loads(text or b"", object_pairs_hook=list)
    return found


def with_fields(fields: bytes, value: bytes) -> bytes:
    """A model: the fields, then the object's own members as they are written."""
    if not fields:
        return value
    rest = value[1:]
    return b"{" + fields + (b"}" if rest.strip() == b"}" else b"," + rest)


# -- constant fields -----------------------------------------------------------------------------------------------


def test_constant_fields_stand_in_front_of_those_of_each_record() -> None:
    shape = Shape(members({"host": "web-1", "n": 7, "share": 0.5, "live": True}))
    assert values(sealed(b'{"a":1}\n{"b":{"c":"d"}}\n', shape=shape)) == [
        b'{"host":"web-1","n":7,"share":0.5,"live":true,"a":1}',
        b'{"host":"web-1","n":7,"share":0.5,"live":true,"b":{"c":"d"}}',
    ]


@pytest.mark.parametrize("empty", [b"{}", b"{ }", b"{\t}", b" {} ", b"{}\r"])
def test_an_empty_object_becomes_one_of_the_constant_fields_alone(empty: bytes) -> None:
    assert values(sealed(b'{"a":1}\n' + empty + b'\n{"b":1}\n')) == [
        b'{"host":"web-1","a":1}',
        b'{"host":"web-1"}',
        b'{"host":"web-1","b":1}',
    ]


def test_a_record_s_own_field_comes_last_and_so_wins_with_most_readers() -> None:
    (value,) = values(sealed(b'{"host":"mine"}\n'))
    assert value == b'{"host":"web-1","host":"mine"}'
    assert json.loads(value) == {"host": "mine"}


def test_wrapped_lines_get_the_fields_too_and_each_of_their_parts() -> None:
    result = sealed(b"plain text\n\xff\n" + b"x" * 600 + b"\n", max_record_bytes=300)
    found = [json.loads(value or b"") for value in values(result)]
    assert all(next(iter(each)) == "host" and each["host"] == "web-1" for each in found)
    assert found[0]["message"] == "plain text"
    assert found[1]["message_base64"] == "/w=="
    assert "".join(each["message"] for each in found[2:]) == "x" * 600
    assert all(len(value or b"") <= 300 for value in values(result))
    assert result.invalid == 3


def test_a_record_that_is_too_long_with_its_fields_is_over_long() -> None:
    added = len(b'"host":"web-1",')
    fits = b'{"a":"' + b"x" * (300 - added - 8) + b'"}'
    assert len(fits) + added == 300
    result = sealed(fits + b"\n", max_record_bytes=300)
    assert (result.invalid, [len(value or b"") for value in values(result)]) == (0, [300])
    assert sealed(fits[:-2] + b'x"}\n', max_record_bytes=300).invalid == 1


def test_fields_of_a_block_follow_those_of_the_stream() -> None:
    first = Block(b'{"a":1}\n', NOW_MS, fields=members({"file": "/a.log"}))
    second = Block(b'{"a":2}\n{}\n', NOW_MS, fields=members({"file": "/b.log"}))
    third = Block(b'{"a":3}\n', NOW_MS)
    expected = [b'"file":"/a.log","a":1}', b'"file":"/b.log","a":2}', b'"file":"/b.log"}', b'"a":3}']
    assert values(sealed(first, second, third)) == [b'{"host":"web-1",' + each for each in expected]
    assert values(sealed(first, second, third, shape=PLAIN)) == [b"{" + each for each in expected]
    nothing = Block(b"\n", NOW_MS)
    assert values(sealed(first, nothing, first, shape=PLAIN)) == [b"{" + expected[0]] * 2


@pytest.mark.parametrize("shape", [PLAIN, HOST, Shape(key_field="a"), Shape(HOST.fields, key_field="a")])
def test_records_that_their_source_made_are_framed_as_if_they_were_validated(shape: Shape) -> None:
    data = b'{"a":1}\n{}\n{"b":"\xc3\xa9"}\n' + b'{"a":"' + b"x" * 900 + b'"}\n'
    made = [Block(data, NOW_MS, is_checked=is_checked) for is_checked in (False, True)]
    expected, found = (records(sealed(block, shape=shape)) for block in made)
    assert found == expected
    assert values(sealed(Block(b'{"not json}\n', NOW_MS, is_checked=True), shape=PLAIN)) == [b'{"not json}']
    short, long_ = (sealed(block, shape=shape, max_record_bytes=300) for block in made)
    assert records(short) == records(long_)
    assert short.invalid == long_.invalid == 1


def test_records_whose_ends_are_known_get_the_fields() -> None:
    spread = [b'{"a":\n1}', b"{}", b"two\nlines", b'{"b":2}']
    block = Block(b"".join(spread), NOW_MS, ends=array("I", accumulate(map(len, spread))))
    assert [dict(pairs(value)) for value in values(sealed(block))] == [
        {"host": "web-1", "a": 1},
        {"host": "web-1"},
        {"host": "web-1", "message": "two\nlines", "invalid": True},
        {"host": "web-1", "b": 2},
    ]


def test_an_object_nested_as_deep_as_json_may_be_gets_the_fields_and_its_neighbours_stay_valid() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    assert values(sealed(deep + b'\n{"b":1}\n')) == [
        with_fields(HOST.fields, value or b"") for value in values(sealed(deep + b'\n{"b":1}\n', shape=PLAIN))
    ]


@given(
    st.lists(st.tuples(some_lines, some_fields), max_size=4), some_fields, st.sampled_from(["key", None]), st.booleans()
)
@example([([b'{"a":1}'], {"file": "x"}), ([b'{"a":2}'], {"file": "y"})], {}, None, True)
def test_any_blocks_give_the_records_that_they_give_alone_with_fields_in_front(
    blocks: list[tuple[list[bytes], dict[str, Any]]], fields: dict[str, Any], key: str | None, drop: bool
) -> None:
    invalid: Literal["wrap", "drop"] = "drop" if drop else "wrap"
    made = [Block(b"".join(line + b"\n" for line in lines), NOW_MS, fields=members(own)) for lines, own in blocks]
    result = sealed(*made, shape=Shape(members(fields), key_field=key), invalid=invalid)
    alone = [jsonlines.split(block.data, invalid=invalid, max_record_bytes=512 * KIB) for block in made]
    expected = [
        with_fields(b",".join(filter(None, (members(fields), block.fields))), bytes(value))
        for block, lines in zip(made, alone, strict=True)
        for value in lines.values
    ]
    assert values(result) == expected
    assert result.of_blocks == [(len(lines.values), lines.invalid) for lines in alone]
    assert (result.invalid, result.blank) == (sum(x.invalid for x in alone), sum(x.blank for x in alone))
    if key is not None:
        assert keys(result) == [key_in(value) for value in expected]


def test_many_records_of_many_sizes_are_framed_with_their_fields() -> None:
    lines = [b'{"n":%d,"x":"%b"}' % (n, b"x" * (n % 300)) for n in range(20_000)]
    result = sealed(b"".join(line + b"\n" for line in lines), max_batch_bytes=8 * KIB * KIB)
    assert values(result) == [with_fields(HOST.fields, line) for line in lines]


# -- how large batches are -----------------------------------------------------------------------------------------


def full_block(of: int = 900 * KIB) -> bytes:
    line = (
        b'{"client":"10.0.0.1","path":"/index.html","agent":"Mozilla/5.0 (X11; Linux x86_64)","status":200,"n":1%06d}\n'
    )
    return b"".join(line % n for n in range(of // len(line % 0)))


def test_a_full_block_is_one_batch_with_fields_keys_and_headers() -> None:
    headers = header_fields([(b"host", b"web-1.example.net"), (b"stream", b"http")])
    shape = Shape(members({"host": "web-1", "environment": "production"}), headers, "client")
    result = sealed(full_block(), shape=shape, codec=Codec.ZSTD)
    assert len(result.batches) == 1
    assert len(result.batches[0].payload) < 1_048_588


@pytest.mark.parametrize("codec", list(Codec))
def test_what_is_added_never_makes_a_batch_grow_without_bound(codec: Codec) -> None:
    headers = header_fields([(b"x", b"y" * 2000)])
    block = b"{}\n" * 30_000
    result = sealed(block, shape=Shape(headers=headers), max_batch_bytes=100 * KIB, codec=codec)
    most = 100 * KIB * 9 / 8 if codec is Codec.NONE else RULES.max_uncompressed_bytes * 9 / 8
    assert all(len(batch.payload) <= 100 * KIB * 9 / 8 for batch in result.batches)
    assert all(batch.uncompressed_bytes <= most for batch in result.batches)
    assert sum(batch.record_count for batch in result.batches) == 30_000


def test_batches_are_cut_with_the_right_openings_and_keys() -> None:
    blocks = [
        Block(b'{"key":%d}\n{}\n{"key":"%d"}\n' % (n, n), NOW_MS, fields=members({"file": f"/{n}.log"}))
        for n in range(9)
    ]
    result = sealed(*blocks, shape=Shape(key_field="key"), max_batch_records=4)
    assert [batch.record_count for batch in result.batches] == [4] * 6 + [3]
    assert values(result) == [
        value
        for n in range(9)
        for value in (
            b'{"file":"/%d.log","key":%d}' % (n, n),
            b'{"file":"/%d.log"}' % n,
            b'{"file":"/%d.log","key":"%d"}' % (n, n),
        )
    ]
    assert keys(result) == [key for n in range(9) for key in (b"%d" % n, None, b"%d" % n)]


# -- keys ----------------------------------------------------------------------------------------------------------


def key_in(value: bytes) -> bytes | None:
    """A model of the key: a text is its characters, everything else its JSON; of duplicates the last."""
    found: Any = None
    for name, member in pairs(value):
        if name == "key" and member is not None:
            found = member
    if found is None:
        return None
    return found.encode() if isinstance(found, str) else raw_member(value)


def raw_member(value: bytes) -> bytes:
    import msgspec

    return bytes(msgspec.json.decode(value, type=dict[str, msgspec.Raw])["key"])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"key":"10.0.0.1"}', b"10.0.0.1"),
        (b'{"a":1,"key":"x","b":2}', b"x"),
        (b'{"key":17}', b"17"),
        (b'{"key":1.50}', b"1.50"),
        (b'{"key":true}', b"true"),
        (b'{"key":{"a": 1}}', b'{"a": 1}'),
        (b'{"key":""}', b""),
        (b'{"key":"a\\"b\\u00e9"}', 'a"bé'.encode()),
        ('{"key":"é"}'.encode(), "é".encode()),
        (b'{"key":"a","key":"b"}', b"b"),
        (b'{"\\u006bey":"escaped"}', b"escaped"),
        (b'{"key":null}', None),
        (b'{"a":{"key":"nested"}}', None),
        (b'{"other":"key"}', None),
        (b"{}", None),
        (b"text", None),
        (b'{"key":"%b"}' % (b"x" * MAX_KEY_BYTES), b"x" * MAX_KEY_BYTES),
        (b'{"key":"%b"}' % (b"x" * (MAX_KEY_BYTES + 1)), None),
    ],
)
@pytest.mark.parametrize("others", [b"", b" {} \n"])
def test_a_key_is_the_field_of_that_name(line: bytes, key: bytes | None, others: bytes) -> None:
    assert keys(sealed(others + line + b"\n", shape=Shape(key_field="key")))[-1] == key
    assert values(sealed(b'{"a":1}\n', shape=Shape(key_field="key"))) == [b'{"a":1}']


def test_without_the_field_a_constant_field_of_that_name_is_the_key() -> None:
    shape = Shape(members({"host": "web-1"}), key_field="host")
    block = Block(b'{"a":1}\n{"host":"mine"}\ntext\n', NOW_MS)
    assert keys(sealed(block, shape=shape)) == [b"web-1", b"mine", b"web-1"]
    with_file = Block(b'{"a":1}\n', NOW_MS, fields=members({"file": "/a.log"}))
    assert keys(sealed(with_file, shape=Shape(key_field="file"))) == [b"/a.log"]


# -- headers -------------------------------------------------------------------------------------------------------


def test_every_record_has_the_headers_of_its_stream() -> None:
    headers: list[tuple[bytes, bytes | None]] = [(b"host", b"web-1"), ("é".encode(), b"")]
    result = sealed(b'{"a":1}\n{}\ntext\n', shape=Shape(headers=header_fields(headers)))
    assert [headers_of(record.headers) for record in records(result)] == [headers] * 3
    assert values(result)[:2] == [b'{"a":1}', b"{}"]
    assert [record.headers for record in records(sealed(b"{}\n", shape=PLAIN))] == [NO_HEADERS]
