"""The key schedule against another implementation of HKDF, and the rules of the transcript."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from streams.security.tls13.key_schedule import (
    KeySchedule,
    Transcript,
    expand_label,
    extract,
    next_traffic_secret,
    traffic_keys,
)
from streams.security.tls13.suites import SUITES

HASHES: dict[str, hashes.HashAlgorithm] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
LABELS = st.sampled_from(["derived", "c hs traffic", "key", "iv", "finished", "traffic upd"])


def label_info(label: str, context: bytes, length: int) -> bytes:
    full = b"tls13 " + label.encode()
    return length.to_bytes(2) + bytes((len(full),)) + full + bytes((len(context),)) + context


@given(st.sampled_from(sorted(HASHES)), st.binary(min_size=32, max_size=48), LABELS, st.binary(max_size=48), st.data())
def test_expand_label_is_what_another_hkdf_says(
    name: str, secret: bytes, label: str, context: bytes, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, HASHES[name].digest_size))
    other = HKDFExpand(HASHES[name], length, label_info(label, context, length)).derive(secret)
    assert expand_label(name, secret, label, context, length) == other


@given(st.sampled_from(sorted(HASHES)), st.binary(min_size=1, max_size=64), st.binary(max_size=128))
def test_extract_is_what_another_hkdf_says(name: str, salt: bytes, secret: bytes) -> None:
    assert extract(name, salt, secret) == HKDF.extract(HASHES[name], salt, secret)


@pytest.mark.parametrize("code", SUITES)
def test_the_chain_of_secrets_is_that_of_the_rfc(code: int) -> None:
    """Section 7.1's figure, written out."""
    suite = SUITES[code]
    size, name = suite.hash_bytes, suite.hash
    empty = hashlib.new(name).digest()
    early = extract(name, bytes(size), bytes(size))
    handshake = extract(name, expand_label(name, early, "derived", empty, size), b"shared")
    main = extract(name, expand_label(name, handshake, "derived", empty, size), bytes(size))
    schedule = KeySchedule(suite)
    schedule.advance(b"shared")
    assert schedule.derive("c hs traffic", empty) == expand_label(name, handshake, "c hs traffic", empty, size)
    schedule.advance()
    assert schedule.derive("c ap traffic", empty) == expand_label(name, main, "c ap traffic", empty, size)
    before = schedule.derive("c ap traffic", empty)
    schedule.forget()
    assert schedule.derive("c ap traffic", empty) != before


@pytest.mark.parametrize("code", SUITES)
def test_traffic_keys_have_the_lengths_of_their_suite(code: int) -> None:
    suite = SUITES[code]
    secret = bytes(suite.hash_bytes)
    keys = traffic_keys(suite, secret)
    key = expand_label(suite.hash, secret, "key", b"", suite.key_bytes)
    sealed = keys.aead.encrypt(bytes(12), b"text", None)
    assert suite.aead(key).decrypt(bytes(12), sealed, None) == b"text"
    assert keys.iv == int.from_bytes(expand_label(suite.hash, secret, "iv", b"", 12))
    following = next_traffic_secret(suite, secret)
    assert len(following) == suite.hash_bytes
    assert following != secret


def test_after_a_retry_the_first_hello_is_its_hash() -> None:
    transcript = Transcript("sha256")
    transcript.add(b"hello")
    transcript.replace_first_hello()
    transcript.add(b"retry")
    first = hashlib.sha256(b"hello").digest()
    assert transcript.hash() == hashlib.sha256(b"\xfe\0\0\x20" + first + b"retry").digest()
    assert transcript.hash() == transcript.hash()
