"""Keys distributed beforehand: the file, which key a forwarder takes, and receivers that replace theirs."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from logfwd.commands.pki import pki as command
from streams.errors import ConfigError, HandshakeFailed
from streams.security import modes, stacks, stored_keys
from streams.security.endpoint import Credentials, KeyPair, MlKemFiles
from streams.security.modes import MODES
from tests.support.tls import FORWARDER, Parties, issue, problems, shake_hands

PDK = MODES["kemtls-pdk"]
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


def receiver_with(parties: Parties, name: str, *previous: KeyPair, **options: object) -> Credentials:
    """The receiver with another leaf, and the leaves that it replaced."""
    names: dict[str, list[str]] = {"identities": ["receiver"], "hosts": ["localhost"]}
    files = issue(parties.mldsa, name, kind="mlkem768", force=True, **names, **options)  # type: ignore[arg-type]
    made = MlKemFiles(files.certificate, files.key, files.ca, previous=previous)
    return msgspec.structs.replace(parties.receiver, mlkem=made)


def storing(parties: Parties, *paths: Path) -> Credentials:
    """The forwarder with these stored keys."""
    assert parties.forwarder.mlkem is not None
    return msgspec.structs.replace(
        parties.forwarder, mlkem=msgspec.structs.replace(parties.forwarder.mlkem, stored_keys=paths)
    )


def pair_of(receiver: Credentials) -> KeyPair:
    assert receiver.mlkem is not None
    return KeyPair(receiver.mlkem.certificate, receiver.mlkem.key)


def link(forwarder: Credentials, receiver: Credentials, host: str = "localhost") -> None:
    """A handshake, judged on both ends."""
    near, far = stacks.client(PDK, forwarder).endpoint(host), stacks.server([PDK], receiver).endpoint()
    shake_hands(near, far)
    for end, name in ((near, "receiver"), (far, FORWARDER)):
        facts = end.facts()
        modes.check(PDK, facts)
        assert (facts.authentication, facts.certificate_algorithm) == ("ML-KEM-768", "ML-KEM-768")
        assert name in facts.identities
        assert facts.certificate_expires is not None


def test_the_command_writes_what_a_forwarder_reads(parties: Parties, tmp_path: Path) -> None:
    assert parties.receiver.mlkem is not None
    out = tmp_path / "receiver.pdk"
    arguments = ["pdk", str(parties.receiver.mlkem.certificate), "--out", str(out)]
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, "for receiver, localhost, 127.0.0.1, until" in result.output) == (0, True)
    found = stored_keys.read(out, "tls.mlkem")
    assert found.names == ("receiver", "localhost", "127.0.0.1")
    assert datetime.timedelta(days=89) < found.until - NOW < datetime.timedelta(days=91)
    again = CliRunner().invoke(command, arguments)
    assert (again.exit_code, "use --force" in again.output) == (1, True)
    link(storing(parties, out), parties.receiver)


@pytest.mark.parametrize(
    ("party", "kind", "text"),
    [
        ("forwarder", "mlkem768", "it names no host or address: issue it with --host"),
        ("receiver", "mldsa65", "its key is not ML-KEM-768: issue it with `logfwd pki issue --key mlkem768`"),
    ],
)
def test_a_certificate_without_a_key_to_distribute_is_told(
    parties: Parties, tmp_path: Path, party: str, kind: str, text: str
) -> None:
    identities = ["spiffe://test/host"] if party == "forwarder" else ["receiver"]
    files = issue(parties.mldsa, "no-key", kind=kind, force=True, identities=identities)
    result = CliRunner().invoke(command, ["pdk", str(files.certificate), "--out", str(tmp_path / "out")])
    assert (result.exit_code, text in result.output) == (1, True)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("names", "name", "names is not a list of names"),
        ("Z\n", "\n", "until is not a time with its zone"),
        ("key =", "k =", "key is missing"),
        ("BEGIN", "BEGUN", "cannot be used"),
        ("names =", "names = =", "cannot be used"),
        ("# ", "#" * 70_000, "is larger than 64 KiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    parties: Parties, tmp_path: Path, old: str, new: str, text: str
) -> None:
    assert parties.forwarder.mlkem is not None
    (good,) = parties.forwarder.mlkem.stored_keys
    bad = tmp_path / "bad.pdk"
    bad.write_text(good.read_text().replace(old, new, 1))
    (found,) = problems(storing(parties, bad), "kemtls-pdk")
    assert found.startswith("tls.mlkem.stored_keys: cannot be used: ")
    assert text in found
    with pytest.raises(ConfigError, match="make it with `logfwd pki pdk`"):
        stacks.client(PDK, storing(parties, bad))


def test_a_receiver_that_replaces_its_key_strands_nobody(parties: Parties) -> None:
    first = receiver_with(parties, "first")
    old = parties.store_key("first")
    second = receiver_with(parties, "second", pair_of(first))
    for forwarder in (storing(parties, old), storing(parties, parties.store_key("second"))):
        link(forwarder, second)
    forgetful = receiver_with(parties, "third")
    with pytest.raises(HandshakeFailed) as refused:
        link(storing(parties, old), forgetful)
    assert refused.value.reason == "unknown_stored_key"


def test_of_several_keys_for_a_host_the_one_that_lasts_longest_is_used(parties: Parties) -> None:
    receiver_with(parties, "short", days=1)
    long = receiver_with(parties, "long", days=30)
    stored = [parties.store_key(name) for name in ("short", "long")]
    for paths in (stored, stored[::-1]):
        link(storing(parties, *paths), long)


def test_a_key_for_another_host_is_refused_before_anything_is_sent(parties: Parties) -> None:
    near = stacks.client(PDK, parties.forwarder).endpoint("logs.example.net")
    with pytest.raises(HandshakeFailed, match=r"is for receiver, localhost, 127\.0\.0\.1, not for 'logs.example.net'"):
        near.handshake()
    assert near.take() == []


def test_an_expired_key_is_named_by_validate_and_begins_no_handshake(parties: Parties) -> None:
    start = NOW - datetime.timedelta(days=3)
    receiver = receiver_with(parties, "expired", days=2, not_before=start)
    forwarder = storing(parties, parties.store_key("expired"))
    (found,) = problems(forwarder, "kemtls-pdk")
    assert found.startswith("tls.mlkem.stored_keys: has expired at ")
    with pytest.raises(HandshakeFailed, match="has expired: distribute a new one"):
        link(forwarder, receiver)


def test_a_previous_leaf_of_another_kind_is_told(parties: Parties) -> None:
    assert parties.receiver.mldsa is not None
    wrong = KeyPair(parties.receiver.mldsa.certificate, parties.receiver.mldsa.key)
    receiver = receiver_with(parties, "present", wrong)
    text = "its key is not of a KEM, so no forwarder can have stored it: remove the pair"
    assert problems(receiver, "kemtls-pdk", accepting=True) == [f"tls.mlkem.previous.certificate: {text}"]


def test_a_receiver_sees_that_a_previous_leaf_has_changed(parties: Parties) -> None:
    first = receiver_with(parties, "seen")
    second = receiver_with(parties, "present", pair_of(first))
    assert second.mlkem is not None
    assert {first.mlkem.certificate, first.mlkem.key} < set(second.mlkem.paths())  # type: ignore[union-attr]
