"""Syslog messages as JSON objects: examples of both RFCs, of real senders, and any bytes at all."""

from __future__ import annotations

import base64
import calendar
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logfwd.sources.syslog.message import FACILITIES, SEVERITIES, to_json
from logfwd.sources.syslog.settings import FIELDS

NOW = float(calendar.timegm((2026, 11, 29, 19, 0, 0)))


def parsed(message: bytes, *, now: float = NOW, local: bool = False) -> dict[str, Any] | None:
    record = to_json(message, now, local=local)
    if record is None:
        return None
    assert b"\n" not in record
    fields: dict[str, Any] = json.loads(record)
    return fields


def of(facility: str, severity: str, **fields: Any) -> dict[str, Any]:
    return {"facility": facility, "severity": severity, **fields}


def test_every_field_of_a_record_is_known_to_the_configuration() -> None:
    for sent in (b'<13>1 2026-11-29T19:09:12Z web app 1 ID [a@1 b="c"] x', b"<13>1 - - - - - - \xff"):
        found = parsed(sent)
        assert found is not None
        assert set(found) <= set(FIELDS)


def test_defaults_stand_in_front_where_the_message_has_no_such_field() -> None:
    defaults = {"host": "here", "app": "none"}
    assert to_json(b"<13>1 - - su - - - x", NOW, defaults=defaults) == (
        b'{"host":"here","facility":"user","severity":"notice","app":"su","message":"x"}'
    )


def test_the_examples_of_rfc_5424() -> None:
    assert parsed(
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed for lonvick"
    ) == of(
        "auth",
        "crit",
        timestamp="2003-10-11T22:14:15.003Z",
        host="mymachine.example.com",
        app="su",
        msgid="ID47",
        message="'su root' failed for lonvick",
    )
    assert parsed(b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time.") == of(
        "local4",
        "notice",
        timestamp="2003-08-24T05:14:15.000003-07:00",
        host="192.0.2.1",
        app="myproc",
        procid="8710",
        message="%% It's time.",
    )
    assert parsed(
        b'<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" '
        b'eventID="1011"][examplePriority@32473 class="high"]'
    ) == of(
        "local4",
        "notice",
        timestamp="2003-10-11T22:14:15.003Z",
        host="h",
        app="evntslog",
        msgid="ID47",
        structured_data={
            "exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"},
            "examplePriority@32473": {"class": "high"},
        },
    )


def test_structured_data_is_unescaped_and_a_repeated_parameter_is_an_array() -> None:
    message = rb'<13>1 - - - - - [a@1 q="say \"hi\"" b="back\\slash" c="\]" d="\n"][origin ip="1" ip="2" ip="3"][e] t'
    assert parsed(message) == of(
        "user",
        "notice",
        structured_data={
            "a@1": {"q": 'say "hi"', "b": "back\\slash", "c": "]", "d": "\\n"},
            "origin": {"ip": ["1", "2", "3"]},
            "e": {},
        },
        message="t",
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no priority",
        b"<>x",
        b"<192>x",
        b"<999>x",
        b"<013>x",
        b"<1 3>x",
        b"<13",
        b"<13>1 - - -",
        b"<13>1 2026-11-29T19:00:00Z host app - -",
        b'<13>1 - - - - - [a b="c"',
        b'<13>1 - - - - - [a b="c]"] text',
        b"<13>1 - - - - - [a b=c] text",
        b"<13>1 - - - - - [a][a] text",
        b"<13>1 - - - - - -text",
        b'<13>1 - - - - - [a b="c"]text',
        b"<13>1 - - - - - [] text",
    ],
)
def test_what_is_not_a_message_is_left_to_the_caller(message: bytes) -> None:
    assert parsed(message) is None


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            {"host": "mymachine", "app": "su", "message": "'su root' failed for lonvick on /dev/pts/8"},
        ),
        (b"<34>Oct 11 22:14:15 h postfix/smtpd[123]: x: y", {"host": "h", "app": "postfix/smtpd", "procid": "123"}),
        (b"<34>Oct 11 22:14:15 fe80::1 su[1]: x", {"host": "fe80::1", "app": "su", "procid": "1", "message": "x"}),
        (b"<34>Oct 11 22:14:15 fade: no host", {"app": "fade", "message": "no host"}),
        (b"<34>Oct 11 22:14:15 su:no space", {"app": "su", "message": "no space"}),
        (b"<34>Oct 11 22:14:15 su: no host", {"app": "su", "message": "no host"}),
        (b"<34>Oct 11 22:14:15 h nothing like a tag", {"host": "h", "message": "nothing like a tag"}),
        (b"<34>Oct  1 22:14:15.123 h su: x", {"timestamp": "2026-10-01T22:14:15.123", "host": "h", "app": "su"}),
        (b"<34>Oct 11 2025 22:14:15: %ASA-6-1: x", {"timestamp": "2025-10-11T22:14:15", "app": "%ASA-6-1"}),
        (
            b"<34>2026-11-29T19:00:00.123456+01:00 h su[2]: x",
            {"timestamp": "2026-11-29T19:00:00.123456+01:00", "host": "h", "app": "su", "procid": "2"},
        ),
        (b"<34>su: no date", {"app": "su", "message": "no date"}),
        (b"<34>plain words\0", {"message": "plain words"}),
        (b"<34>", {"message": ""}),
        (b"<34>1 file copied", {"message": "1 file copied"}),
        (
            b'<34>Oct 11 22:14:15 web1 nginx: 10.0.0.7 - - [x] "GET / HTTP/1.1" 200\n',
            {"host": "web1", "app": "nginx", "message": '10.0.0.7 - - [x] "GET / HTTP/1.1" 200'},
        ),
    ],
)
def test_messages_of_rfc_3164_and_what_senders_make_of_it(message: bytes, fields: dict[str, Any]) -> None:
    found = parsed(message)
    assert found is not None
    assert found.items() >= {**of("auth", "crit"), **fields}.items()
    assert set(found) - set(fields) <= {"facility", "severity", "timestamp", "message"}


def test_a_program_on_this_host_may_send_no_host_name() -> None:
    assert parsed(b"<13>Nov 29 18:59:59 some more words: x", local=True) == of(
        "user", "notice", timestamp="2026-11-29T18:59:59", message="some more words: x"
    )
    assert parsed(b"<13>Nov 29 18:59:59 app[7]: x", local=True) == of(
        "user", "notice", timestamp="2026-11-29T18:59:59", app="app", procid="7", message="x"
    )
    assert parsed(b"<13>Nov 29 18:59:59 web1 nginx: x", local=True) == of(
        "user", "notice", timestamp="2026-11-29T18:59:59", host="web1", app="nginx", message="x"
    )


@pytest.mark.parametrize(
    ("now", "date", "year"),
    [
        ((2026, 11, 29), "Nov 29", 2026),
        ((2026, 11, 29), "Nov 30", 2026),
        ((2026, 11, 29), "Dec  1", 2025),
        ((2026, 1, 1), "Dec 31", 2025),
        ((2025, 12, 31), "Jan  1", 2026),
        ((2028, 3, 1), "Feb 29", 2028),
    ],
)
def test_the_year_is_the_one_that_brings_the_date_closest(now: tuple[int, int, int], date: str, year: int) -> None:
    found = parsed(f"<13>{date} 12:00:00 h a: x".encode(), now=float(calendar.timegm((*now, 12, 0, 0))))
    assert found is not None
    assert found["timestamp"].startswith(f"{year}-")


def test_every_priority_has_a_name() -> None:
    for number in range(192):
        assert parsed(b"<%d>x" % number) == of(FACILITIES[number // 8], SEVERITIES[number % 8], message="x")


def test_bytes_that_are_not_utf_8_are_kept() -> None:
    assert parsed(b"<13>app: caf\xe9") == of(
        "user", "notice", app="app", message_base64=base64.b64encode(b"caf\xe9").decode()
    )
    assert parsed(b'<13>1 - h\xff - - - [a b="\xfe"][c d="1" d="\xfd"] caf\xc3\xa9') == of(
        "user",
        "notice",
        host="h\ufffd",
        structured_data={"a": {"b": "\ufffd"}, "c": {"d": ["1", "\ufffd"]}},
        message="café",
    )


_WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).filter(lambda t: t != "-")
_NAME = st.text(st.sampled_from("abcXYZ019._@"), min_size=1, max_size=10)
_VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    st.integers(0, 191),
    st.lists(st.none() | _WORD, min_size=4, max_size=4),
    st.dictionaries(_NAME, st.dictionaries(_NAME, _VALUE, max_size=3), max_size=3),
    _VALUE,
)
def test_whatever_is_written_by_the_rules_is_read_again(
    priority: int, header: list[str | None], data: dict[str, dict[str, str]], message: str
) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")

    elements = "".join(
        f"[{name}{''.join(f' {key}={chr(34)}{escaped(value)}{chr(34)}' for key, value in each.items())}]"
        for name, each in data.items()
    )
    text = f"<{priority}>1 - {' '.join(each or '-' for each in header)} {elements or '-'} {message}"
    expected = of(FACILITIES[priority // 8], SEVERITIES[priority % 8])
    expected |= {
        name: each for name, each in zip(("host", "app", "procid", "msgid"), header, strict=True) if each is not None
    }
    if data:
        expected["structured_data"] = data
    expected["message"] = message.removeprefix("\ufeff").rstrip("\r\n\0")
    assert parsed(text.encode()) == expected


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"<13>1 - a b c d [" + rest), st.booleans())
@example(b"<13>" + b"\xed\xa0\x80", True)
def test_no_bytes_raise_and_every_record_is_an_object(message: bytes, local: bool) -> None:
    found = parsed(message, local=local)
    assert found is None or found.keys() >= {"facility", "severity"}


@pytest.mark.parametrize(
    "message",
    [
        b"<13>1 - - - - - [a" + b" " * 65_000,
        b"<13>1 - - - - - [a" + b' b="c"' * 10_000,
        b'<13>1 - - - - - [a b="' + b"\\\\" * 32_000,
        b'<13>1 - - - - - [a b="' + b'\\"' * 32_000,
        b"<13>1 - " + b"a" * 65_000,
        b"<13>1 - - - - - " + b"[a]" * 20_000,
        b"<13>Oct 11 22:14:15 " + b"a:" * 32_000,
        b"<13>Oct 11 22:14:15 " + b"a" * 65_000,
        b"<13>2026-11-29T19:00:00" + b"0" * 65_000,
    ],
)
def test_no_message_takes_long(message: bytes) -> None:
    started = time.process_time()
    to_json(message, NOW)
    assert time.process_time() - started < 0.25
