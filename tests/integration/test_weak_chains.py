"""Real programs whose peer has a post-quantum leaf below a classical authority: refused unless allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from bench.lab.generate import generate_http
from bench.lab.processes import wait_until
from bench.lab.site import Site
from logreceiver.sinks.log.sink import read_records
from tests.streams.security.tls13.support import Authority

RECORDS = 50
NAMES = {"receiver": ["localhost", "127.0.0.1"], "forwarder": ["spiffe://demo/host-1"]}
LEAVES = {"pq-auth": ("mldsa65", ""), "kemtls": ("mlkem768", "-kem")}
SCHEMES = {"p256": "ecdsa_secp256r1_sha256", "rsa": "rsa_pkcs1_sha256"}
ALLOWED = 'ca = "pki/mldsa/ca.pem"\nallow_classical_chain = true\n'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "http.log").write_bytes(b"".join(bytes(line) + b"\n" for line in generate_http(RECORDS, seed=9)))
    with Site(tmp_path) as made:
        made.make_pki()
        yield made


def weaken(site: Site, mode: str, kind: str, party: str) -> None:
    """Both ends trust one ML-DSA root alone; between it and this party's leaf is a classical authority."""
    root = Authority("mldsa65", name="root")
    classical = Authority(kind, name="classical", parent=root)
    leaf_kind, ending = LEAVES[mode]
    pki = site.directory / "pki" / "mldsa"
    for name, identities in NAMES.items():
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == "receiver" else ExtendedKeyUsageOID.CLIENT_AUTH
        options = {"key_usage": "key_encipherment", "purposes": [purpose]} if leaf_kind == "mlkem768" else {}
        authority = classical if name == party else root
        files = authority.issue(pki / f"new-{name}", leaf_kind, identities, root=root, **options)
        for suffix, path in ((".pem", files.certificate), (".key", files.key)):
            path.replace(pki / f"{name}{ending}{suffix}")
        files.ca.replace(pki / "ca.pem")


def start(site: Site, mode: str, *, allowing: set[str]) -> None:
    """Both programs, in one mode; those that `allowing` names accept classical chains."""
    site.write_receiver('type = "log"\ndirectory = "log"', listeners={"127.0.0.1:0": f'["{mode}"]'})
    allow(site, "logreceiver", allowing)
    site.write_forwarder(site.start_receiver())
    allow(site, "logfwd", allowing)
    site.write_stream("http", f'security = "{mode}"\n[source]\ntype = "file"\npaths = ["http.log"]\n')
    site.start_forwarder()


def allow(site: Site, program: str, allowing: set[str]) -> None:
    """Rewrite a config: only the mode's own section is left, with or without the permission."""
    path = site.directory / f"{program}.toml"
    if program in allowing:
        path.write_text(path.read_text().replace('ca = "pki/mldsa/ca.pem"\n', ALLOWED))


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("mode", LEAVES)
@pytest.mark.parametrize(("weak", "strict"), [("logfwd", "logreceiver"), ("logreceiver", "logfwd")])
def test_a_classical_authority_above_a_peers_leaf_is_refused_by_the_end_that_does_not_allow_it(
    site: Site, mode: str, kind: str, weak: str, strict: str
) -> None:
    weaken(site, mode, kind, "forwarder" if weak == "logfwd" else "receiver")
    start(site, mode, allowing={weak})
    by_program = {"logreceiver": site.receiver, "logfwd": site.forwarder}

    def refusals() -> list[str]:
        events = by_program[strict].events()
        return [str(entry.get("detail") or entry.get("reason")) for entry in events if entry["event"] in REFUSED]

    assert wait_until(lambda: bool(refusals()), 30), by_program[strict].tail()
    assert SCHEMES[kind] in refusals()[0]
    assert site.streams()["http"]["records"]["acknowledged"] == 0


REFUSED = ("handshake failed", "link refused", "link failed")


@pytest.mark.parametrize("mode", LEAVES)
def test_where_both_ends_allow_it_the_link_is_shown_as_classical(site: Site, mode: str) -> None:
    weaken(site, mode, "p256", "forwarder")
    start(site, mode, allowing={"logfwd", "logreceiver"})
    assert site.wait_until_acknowledged(RECORDS, ["http"], seconds=30), site.forwarder.tail()
    site.forwarder.stop()
    site.receiver.stop()
    kept = [msgspec.json.decode(each.value or b"") for each in read_records(site.directory / "log", "logfwd.ledger")]
    found = {(each["mode"], each["authentication"]) for each in kept if each["kind"] == "batch"}
    assert found == {(mode, "ecdsa_secp256r1_sha256")}
