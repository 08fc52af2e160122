"""Container lines that are taken many at a time: the same records as one by one, for any bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logfwd.intake import jsonlines
from logfwd.sources.formats import containers, whole
from logfwd.sources.formats.containers import Parse
from logfwd.sources.formats.encodings import UTF_8
from logfwd.sources.formats.joined import JoinedLines, Rules
from logfwd.sources.formats.text import ignore

TIME = b"2026-01-31T10:00:00.000000001Z"
LIMIT = 2000

contents = st.sampled_from(
    [
        b'{"a":1}',
        b'{"a":"\xc3\xa9\\n","b":{"time":1}}',
        b'{"time":"own","a":1}',
        b'{"a":1,"stream":"own"}',
        b'{"time":1,"stream":2}',
        b'{"\\u0074ime":"own"}',
        b'{"attrs":1}',
        b'{"a":1 }',
        b'{"a":1\t}',
        b'{"a":1}\t',
        b'{"a":1}\r',
        b' {"a":1}',
        b"\xc2\xa0{}",
        b"{}",
        b"{ }",
        b'{"',
        b'{"}',
        b'{"a":}',
        b'{"a":1}{"b":2}',
        b'{"a":1}}',
        b'{"a":"\xff"}',
        b'{"a":"' + b"x" * LIMIT + b'"}',
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"plain",
        b"\tat x(y.java:3)",
        b'quoted "text" \\ \x00\x1b[0m',
        "жук 中 é \u2028 \U0001f600".encode(),
        b"",
        b"  ",
        "\u3000".encode(),
        b"a\rb",
        b"a\nb",
        b"a\r",
        b"\xff",
        b"x" * (LIMIT // 6),
        b"\x01" * (LIMIT // 5),
    ]
)
times = st.sampled_from(
    [
        TIME,
        TIME,
        TIME,
        b"2026-01-31T10:00:00+01:00",
        b"2026-01-31",
        b"2026-01-31Z10:00:00.000Z",
        b'2026-01-31T"0:00:00.1Z',
        TIME + b"0" * LIMIT,
        b"\xc2\xb2" * 20,
    ]
)
streams = st.sampled_from([b"stdout", b"stdout", b"stderr", b"std"])
tags = st.sampled_from([b"F", b"F", b"F", b"F", b"P", b"F:x", b"X"])


def cri_line(time: bytes, stream: bytes, tag: bytes, content: bytes) -> bytes:
    return b" ".join([time, stream, tag, content])


def docker_line(time: bytes, stream: bytes, tag: bytes, content: bytes) -> bytes:
    ends = {b"P": "", b"X": "\n\n", b"F:x": "\n"}.get(tag, "\n")
    fields = {"log": content.decode(errors="replace") + ends, "stream": stream.decode(), "time": time.decode()}
    made = json.dumps(fields, ensure_ascii=stream == b"stderr").encode()
    return made[:-1] + b',"attrs":{"tag":"x"}}' if tag == b"F:x" else made


Made = tuple[bytes, bytes, dict[str, int]]


def fed(parse: Parse, blocks: list[bytes], *, one_by_one: bool) -> Made:
    """The records of blocks that follow each other, what is open after them, and what was counted."""
    counted: Counter[str] = Counter()

    def count(what: str, number: int) -> None:
        counted[what] += number

    lines = JoinedLines(Rules(parse, None, 1, LIMIT, LIMIT), count)
    if one_by_one:
        lines._whole = None
    made, start = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "PORTION_BYTES", 200)  # so that a block has several
        for block in blocks:
            made.append(lines.feed(block, start, UTF_8))
            start += len(block)
            judged = jsonlines.split(made[-1], invalid="wrap", max_record_bytes=LIMIT)
            assert lines.is_checked <= (judged.invalid == judged.blank == 0)
    return b"".join(made), lines.state(), counted


rows = st.tuples(times, streams, tags, contents)
alike = st.tuples(st.just(TIME), st.sampled_from([b"stdout", b"stderr"]), st.just(b"F"), contents)
same = rows.flatmap(lambda row: st.lists(st.just(row), max_size=3))
oddities = st.sampled_from([b"", b"\r", b"text", b"{}", b"a b c", b'{"log":"x\\n","stream":"stdout","time":"t"}\r{}'])


@pytest.mark.parametrize(("parse", "line"), [(containers.cri, cri_line), (containers.docker, docker_line)])
@given(
    st.lists(st.lists(rows | alike, max_size=6) | st.lists(alike, max_size=6) | same, max_size=4),
    st.lists(oddities, max_size=1),
    st.booleans(),
)
@example([[(TIME, b"stdout", b"F", b"a")], [(TIME, b"stdout", b"P", b"b"), (TIME, b"stdout", b"F", b"c")]], [], True)
@example([[(TIME, b"stdout", b"P", b"a"), (TIME, b"stdout", b"F", b"b\nc")]], [], True)
@example([[(TIME, b"stdout", b"F", b"a\nb")]], [], True)
@example([[(TIME, b"stdout", b"F:x", b"a")]], [], True)
def test_any_lines_give_the_records_that_they_give_one_by_one(
    parse: Parse,
    line: Callable[[bytes, bytes, bytes, bytes], bytes],
    found: list[list[tuple[bytes, bytes, bytes, bytes]]],
    odd: list[bytes],
    is_ended: bool,
) -> None:
    blocks = [b"".join(line(*row) + b"\n" for row in some) for some in found]
    blocks += [each + b"\n" for each in odd]
    if blocks and not is_ended:
        blocks[-1] = blocks[-1][:-1]
    assert fed(parse, blocks, one_by_one=False) == fed(parse, blocks, one_by_one=True)


@pytest.mark.parametrize(("parse", "line"), [(containers.cri, cri_line), (containers.docker, docker_line)])
@pytest.mark.parametrize(
    "content", [b'{"a":1}', b'{"time":"own","a":1}', b'{"stream":1}', b'{"stream":1,"time":2}', b"text", "жук".encode()]
)
def test_usual_lines_are_taken_many_at_a_time(
    parse: Parse, line: Callable[[bytes, bytes, bytes, bytes], bytes], content: bytes
) -> None:
    block = b"".join(line(TIME, stream, b"F", content) + b"\n" for stream in (b"stdout", b"stderr") * 500)
    reader = JoinedLines(Rules(parse, None, 1, LIMIT, LIMIT), ignore)
    assert reader.feed(block, 0, UTF_8).count(b"\n") == 1000
    assert reader.is_checked
    for portion in whole.portions(block):
        made = whole.WHOLE[parse](portion, LIMIT)
        assert made is not None
        assert made.count(b"\n") == portion.count(b"\n") - 1


@given(st.lists(st.integers(0, whole.PORTION_BYTES), max_size=8), st.binary(max_size=3))
def test_portions_are_whole_lines_and_all_of_them(sizes: list[int], rest: bytes) -> None:
    data = b"".join(b"x" * size + b"\n" for size in sizes) + rest
    found = list(whole.portions(data))
    assert b"".join(found) == data
    assert all(portion.endswith(b"\n") for portion in found[:-1])
    assert all(len(portion) <= whole.PORTION_BYTES or portion.count(b"\n") <= 1 for portion in found)
