"""The record layer: what is sealed is opened, with any sizes and cuts; everything else is a typed error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.security.tls13 import records
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.key_schedule import traffic_keys
from streams.security.tls13.names import ContentType
from streams.security.tls13.records import MAX_CIPHERTEXT, MAX_PLAINTEXT, RecordReader, RecordWriter
from streams.security.tls13.suites import SUITES

SECRET = bytes(range(32))
SUITE = SUITES[0x1301]
HANDSHAKE, ALERT, DATA = int(ContentType.HANDSHAKE), int(ContentType.ALERT), int(ContentType.APPLICATION_DATA)


def sealed_pair(code: int = 0x1301) -> tuple[RecordWriter, RecordReader]:
    writer, reader = RecordWriter(), RecordReader()
    for one in (writer, reader):
        one.install(SUITES[code], bytes(SUITES[code].hash_bytes))
    return writer, reader


def sealed_by_hand(inner: bytes, sequence: int = 0) -> bytes:
    """A record with any inner plaintext, for the keys of `protected_reader`."""
    keys = traffic_keys(SUITE, SECRET)
    header = b"\x17\3\3" + (len(inner) + 16).to_bytes(2)
    return header + keys.aead.encrypt((keys.iv ^ sequence).to_bytes(12), inner, header)


def protected_reader() -> RecordReader:
    reader = RecordReader()
    reader.install(SUITE, SECRET)
    return reader


def opened(reader: RecordReader) -> records.Record | None:
    try:
        return reader.next()
    except Abort:
        return None


def refusal(reader: RecordReader, data: bytes) -> Abort:
    reader.feed(data)
    with pytest.raises(Abort) as caught:
        while reader.next() is not None:
            pass
    return caught.value


@given(
    st.sampled_from(sorted(SUITES)),
    st.lists(st.tuples(st.sampled_from([HANDSHAKE, ALERT, DATA]), st.binary(min_size=1, max_size=300)), max_size=8),
    st.data(),
)
def test_what_is_sealed_is_opened_however_it_is_cut(
    code: int, contents: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    writer, reader = sealed_pair(code)
    for kind, content in contents:
        writer.write(kind, content)
    stream = b"".join(writer.out)
    found = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:cut])
        stream = stream[cut:]
        while (record := reader.next()) is not None:
            found.append(tuple(record))
    assert found == contents
    assert reader.waiting == 0


@pytest.mark.parametrize("size", [1, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 5 * MAX_PLAINTEXT + 7])
def test_long_content_makes_as_many_full_records_as_it_takes(size: int) -> None:
    writer, reader = sealed_pair()
    text = bytes(range(251)) * (size // 251 + 1)
    writer.write(DATA, memoryview(text)[:size])
    reader.feed(b"".join(writer.out))
    found = []
    while (record := reader.next()) is not None:
        found.append(record.content)
    assert b"".join(found) == text[:size]
    assert all(len(content) == MAX_PLAINTEXT for content in found[:-1])
    assert writer.records == reader.sequence == len(found)
    assert writer.bytes == size


def test_padding_is_taken_off() -> None:
    reader = protected_reader()
    reader.feed(sealed_by_hand(b"text\x17" + bytes(100)))
    assert reader.next() == (DATA, b"text")


@pytest.mark.parametrize(
    ("inner", "alert"),
    [
        (bytes(100), Alert.UNEXPECTED_MESSAGE),
        (b"\x16", Alert.UNEXPECTED_MESSAGE),
        (b"\x15", Alert.UNEXPECTED_MESSAGE),
        (b"\1\x14", Alert.UNEXPECTED_MESSAGE),
        (b"text\x18", Alert.UNEXPECTED_MESSAGE),
        (b"text\x00\x63\x00", Alert.UNEXPECTED_MESSAGE),
        (bytes(MAX_PLAINTEXT + 1) + b"\x17", Alert.RECORD_OVERFLOW),
        (b"x\x17" + bytes(MAX_PLAINTEXT), Alert.RECORD_OVERFLOW),
    ],
)
def test_inner_plaintext_that_is_not_allowed(inner: bytes, alert: Alert) -> None:
    assert refusal(protected_reader(), sealed_by_hand(inner)).alert == alert


def test_empty_data_is_allowed_but_not_without_end() -> None:
    reader = protected_reader()
    for sequence in range(records.MAX_EMPTY):
        reader.feed(sealed_by_hand(b"\x17", sequence))
        assert reader.next() == (DATA, b"")
    reader.feed(sealed_by_hand(b"x\x17", records.MAX_EMPTY))
    assert reader.next() == (DATA, b"x")
    stream = b"".join(sealed_by_hand(b"\x17", records.MAX_EMPTY + 1 + index) for index in range(records.MAX_EMPTY + 1))
    assert refusal(reader, stream).alert == Alert.UNEXPECTED_MESSAGE


@given(st.integers(0, 36), st.integers(1, 255))
def test_a_record_with_any_byte_changed_is_never_opened(at: int, change: int) -> None:
    """It is refused, or waits for more if its length has grown."""
    writer, reader = sealed_pair()
    writer.write(DATA, b"fifteen letters")
    record = bytearray(b"".join(writer.out))
    assert len(record) == 37
    record[at] ^= change
    reader.feed(record)
    assert opened(reader) is None


def test_a_record_that_is_repeated_or_left_out_does_not_authenticate() -> None:
    for order in ([0, 0], [1, 0], [1]):
        writer, reader = sealed_pair()
        writer.write(DATA, b"first")
        writer.write(DATA, b"second")
        assert refusal(reader, b"".join(writer.out[index] for index in order)).alert == Alert.BAD_RECORD_MAC


@pytest.mark.parametrize(
    ("data", "alert", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", Alert.UNEXPECTED_MESSAGE, "not_tls"),
        (b"G", Alert.UNEXPECTED_MESSAGE, "not_tls"),
        (b"\x16\x02\x00\x00\x01\x00", Alert.UNEXPECTED_MESSAGE, "not_tls"),
        (b"\x80\x2e\x01\x03\x01", Alert.UNEXPECTED_MESSAGE, "not_tls"),
        (b"\x17\x03\x03\x00\x01\x00", Alert.UNEXPECTED_MESSAGE, "tls_error"),
        (b"\x16\x03\x01\x00\x00", Alert.UNEXPECTED_MESSAGE, "tls_error"),
        (b"\x15\x03\x01\x00\x00", Alert.UNEXPECTED_MESSAGE, "tls_error"),
        (b"\x16\x03\x01" + (MAX_PLAINTEXT + 1).to_bytes(2), Alert.RECORD_OVERFLOW, "tls_error"),
        (b"\x14\x03\x03\x00\x01\x01", Alert.UNEXPECTED_MESSAGE, "tls_error"),
    ],
)
def test_unprotected_bytes_that_are_not_allowed(data: bytes, alert: Alert, reason: str) -> None:
    refused = refusal(RecordReader(), data)
    assert (refused.alert, refused.reason) == (alert, reason)


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x16\x03\x03\x00\x01\x00", Alert.UNEXPECTED_MESSAGE),
        (b"\x17\x03\x03" + (MAX_CIPHERTEXT + 1).to_bytes(2), Alert.RECORD_OVERFLOW),
        (b"\x17\x03\x03\x00\x10" + bytes(16), Alert.BAD_RECORD_MAC),
        (b"\x17\x03\x03\x00\x00", Alert.BAD_RECORD_MAC),
        (b"\x17\x03\x03\x00\x20" + bytes(32), Alert.BAD_RECORD_MAC),
        (b"\x15\x03\x03\x00\x03\2\x28\0", Alert.UNEXPECTED_MESSAGE),
        (b"HTTP/", Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_bytes_that_a_protected_side_does_not_take(data: bytes, alert: Alert) -> None:
    refused = refusal(protected_reader(), data)
    assert (refused.alert, refused.reason) == (alert, "tls_error")


def test_change_cipher_spec_is_dropped_where_it_may_come_and_only_as_the_rfc_has_it() -> None:
    reader = RecordReader()
    reader.accept_change_cipher_spec = True
    reader.feed(b"\x14\3\3\0\1\1" * 2 + b"\x16\3\3\0\1\2")
    assert reader.next() == (HANDSHAKE, b"\2")
    for wrong in (b"\x14\3\3\0\1\2", b"\x14\3\3\0\2\1\1", b"\x14\3\3\0\1\1" * (records.MAX_EMPTY + 1)):
        assert refusal(reader, wrong).alert == Alert.UNEXPECTED_MESSAGE
        reader = RecordReader()
        reader.accept_change_cipher_spec = True


def test_a_peer_without_keys_may_say_why_it_stops_until_the_first_protected_record() -> None:
    reader = protected_reader()
    reader.feed(b"\x15\3\3\0\2\2\x28")
    assert reader.next() == (ALERT, b"\2\x28")
    reader.feed(sealed_by_hand(b"x\x17"))
    assert reader.next() == (DATA, b"x")
    assert refusal(reader, b"\x15\3\3\0\2\2\x28").alert == Alert.UNEXPECTED_MESSAGE


def changed_reader(*, keep_previous: bool = True) -> RecordReader:
    """A reader whose peer may or may not have moved to the new keys yet."""
    reader = protected_reader()
    reader.install(SUITE, bytes(32), keep_previous=keep_previous)
    return reader


def test_an_alert_under_the_keys_before_is_taken_as_the_first_record_alone() -> None:
    old_alert = sealed_by_hand(b"\2\x28\x15")
    reader = changed_reader()
    reader.feed(old_alert)
    assert reader.next() == (ALERT, b"\2\x28")
    writer = RecordWriter()
    writer.install(SUITE, bytes(32))
    writer.write(DATA, b"new")
    reader = changed_reader()
    reader.feed(b"".join(writer.out))
    assert reader.next() == (DATA, b"new")
    assert refusal(reader, old_alert).alert == Alert.BAD_RECORD_MAC
    assert refusal(changed_reader(keep_previous=False), old_alert).alert == Alert.BAD_RECORD_MAC


@pytest.mark.parametrize("inner", [b"\x14\0\0\0\x16", b"data\x17", b"\2\x28\x15\0"])
def test_nothing_but_an_alert_is_taken_under_the_keys_before(inner: bytes) -> None:
    assert refusal(changed_reader(), sealed_by_hand(inner)).alert == Alert.BAD_RECORD_MAC


def test_keys_are_worn_after_as_many_records_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "UPDATE_RECORDS", 2)
    monkeypatch.setattr(records, "UPDATE_BYTES", 1000)
    writer, _ = sealed_pair()
    assert not writer.worn
    writer.write(DATA, b"1")
    assert not writer.worn
    writer.write(DATA, b"2")
    assert writer.worn
    writer.update()
    assert not writer.worn
    writer.write(DATA, bytes(1000))
    assert writer.worn


@given(st.binary(max_size=600))
def test_any_bytes_are_records_or_a_typed_error(data: bytes) -> None:
    for reader in (RecordReader(), protected_reader()):
        reader.feed(data)
        while opened(reader) is not None:
            pass
