"""Our own TLS 1.3 with OpenSSL, Node and Go: both roles, every group, suite and key that they share, and retries.

`python -m tests.integration.test_tls13_interop` runs all of it and prints the table.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console
from rich.table import Table

from streams.security.endpoint import Credentials
from streams.security.tls13.client import Client
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from tests.integration.test_foreign_tls13_peers import flush, go_peer, node_peer, running, serve, until
from tests.streams.security.tls13.support import (
    SCHEME_OF,
    Authority,
    connect,
    exchange,
    openssl_client,
    openssl_server,
    our_client,
    our_server,
)

GROUPS = {
    "X25519MLKEM768": "X25519MLKEM768",
    "SecP256r1MLKEM768": "SecP256r1MLKEM768",
    "X25519": "X25519",
    "secp256r1": "P-256",
}
"""As OpenSSL, Node and the Go program call them."""
SUITES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
}
KEYS = {
    "OpenSSL": ("p256", "rsa", "ed25519", "mldsa44", "mldsa65"),
    "Node": ("p256", "mldsa44", "mldsa65"),
    "Go": ("p256",),
}
"""The kinds of key that are tried; Go 1.26 has no ML-DSA."""
CLIENT = "spiffe://test/a"
HYBRID, AES = "X25519MLKEM768", "TLS_AES_128_GCM_SHA256"


class Case(NamedTuple):
    """One handshake. `role` is the foreign peer's; `retry`: the first key share is of another group."""

    peer: str
    role: str
    key: str
    group: str
    suite: str
    form: str = "mutual"
    retry: bool = False


def cases(peer: str) -> Iterator[Case]:
    """Groups × suites, every kind of key, without client certificates, and a retry to each group."""
    for role in ("client", "server"):
        for group, suite in product(GROUPS, SUITES):
            yield Case(peer, role, "p256", group, suite)
        for key in KEYS[peer][1:]:
            yield Case(peer, role, key, HYBRID, AES)
        yield Case(peer, role, "p256", HYBRID, AES, form="server-only")
        for group in GROUPS:
            if peer != "Go" or role == "server" or group == "secp256r1":  # Go sends shares of hybrid groups by itself
                yield Case(peer, role, "p256", group, AES, retry=True)


ALL = [case for peer in KEYS for case in cases(peer)]


class Lab:
    """The foreign programs, and certificates of each kind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("node", "go"):
            (directory / name).mkdir()
        self.commands = {"Node": node_peer(directory / "node"), "Go": go_peer(directory / "go")}
        self._files: dict[str, tuple[Credentials, Credentials]] = {}

    def files(self, key: str) -> tuple[Credentials, Credentials]:
        """A client's and a server's, below an authority of ML-DSA if the leaf has such a key."""
        if key not in self._files:
            authority, at = Authority(key if key.startswith("mldsa") else "p256"), self._directory / key
            self._files[key] = (
                authority.issue(at / "client", key, [CLIENT]),
                authority.issue(at / "server", key),
            )
        return self._files[key]

    def run(self, case: Case) -> Endpoint:
        """Make the handshake and send data both ways; our side, which has agreed on what the case says."""
        client, server = self.files(case.key)
        other = "secp256r1" if case.group == "X25519" else "X25519"
        foreign = GROUPS[case.group]
        suites, mutual = (SUITES[case.suite],), case.form == "mutual"
        if case.role == "client":
            ours = our_server(server, groups=(case.group,), suites=suites, ask_client=mutual)
            offered = f"{GROUPS[other]}:{foreign}" if case.retry else foreign
            self._with_client(case, ours, offered, client)
        else:
            groups = (case.group, other)
            ours = our_client(client, groups=groups, shares=groups[1:] if case.retry else groups[:1], suites=suites)
            self._with_server(case, ours, foreign, server)
        return ours

    def _with_client(self, case: Case, ours: Endpoint, offered: str, files: Credentials) -> None:
        if case.peer == "OpenSSL":
            theirs = openssl_client(files, f"*{offered}" if case.retry else offered)
            connect(theirs, ours)
            exchange(theirs, ours)
            return
        seen = list[bytes]()
        with socket.create_server(("localhost", 0)) as listener:
            listener.settimeout(60)
            thread = threading.Thread(target=serve, args=(ours, listener, seen))
            thread.start()
            port, command = str(listener.getsockname()[1]), self.commands[case.peer]
            assert command is not None
            with running(command, "client", port, offered, case.suite, files) as process:
                answer = json.loads(process.stdout.readline())
            thread.join(60)
        assert (seen, answer["echo"][0], answer["cipher"]) == ([b"hello"], "h", case.suite)

    def _with_server(self, case: Case, ours: Endpoint, groups: str, files: Credentials) -> None:
        if case.peer == "OpenSSL":
            theirs = openssl_server(files, groups, mutual=case.form == "mutual")
            connect(ours, theirs)
            exchange(ours, theirs)
            return
        command = self.commands[case.peer]
        assert command is not None
        with running(command, "server", "0", groups, case.suite, files, case.form) as process:
            port = json.loads(process.stdout.readline())["port"]
            with socket.create_connection(("localhost", port), 60) as link:
                link.settimeout(60)
                ours.handshake()
                flush(ours, link)
                until(ours, link, 0)
                ours.write(b"hello")
                flush(ours, link)
                assert until(ours, link, 5) == b"hello"
                ours.close()
                flush(ours, link)


def retried(ours: Endpoint) -> bool:
    """Whether a HelloRetryRequest was sent."""
    side = ours._side
    return (side._retry_suite if isinstance(side, Client) else side._first) is not None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def name_of(case: Case) -> str:
    extra = " retry" if case.retry else ""
    return f"{case.peer} {case.role} {case.key} {case.group} {case.suite} {case.form}{extra}"


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_we_agree_with_a_foreign_peer(case: Case, lab: Lab) -> None:
    if case.peer == "Go" and lab.commands["Go"] is None:
        pytest.skip("no Go here: install Go 1.26 or later (https://go.dev) to run this independent TLS peer")
    check(case, lab.run(case))


def check(case: Case, ours: Endpoint) -> None:
    facts = ours.facts()
    assert (facts.group, facts.cipher, retried(ours)) == (case.group, case.suite, case.retry)
    if case.role == "server":
        assert facts.identities == ("localhost",)
    else:
        assert facts.identities == ((CLIENT,) if case.form == "mutual" else ())
    if facts.identities and case.key != "ed25519":
        assert ours._shake.agreed.proof == SCHEME_OF[case.key]


def main() -> None:
    """Print the table: a row for each kind of handshake, and whether all suites agreed."""
    shown = Table(title="our TLS 1.3 with others, suites that agreed of those tried", title_justify="left")
    for heading in ("peer", "its role", "key", "authenticates", "first share", *GROUPS):
        shown.add_column(heading)
    with tempfile.TemporaryDirectory() as name:
        lab = Lab(Path(name))
        key = lambda case: (case.peer, case.role, case.key, case.form, case.retry)  # noqa: E731
        for (peer, role, kind, form, retry), together in groupby(sorted(ALL, key=key), key):
            good: dict[str, list[bool]] = {}
            for case in together:
                good.setdefault(case.group, []).append(_agrees(case, lab))
            cells = [f"{sum(good[group])}/{len(good[group])}" if group in good else "–" for group in GROUPS]
            shown.add_row(peer, role, kind, form, "another group" if retry else "this group", *cells)
    Console(width=140).print(shown)


def _agrees(case: Case, lab: Lab) -> bool:
    try:
        check(case, lab.run(case))
    except Exception as error:  # noqa: BLE001 — it is a cell of the table
        print(f"{name_of(case)}: {type(error).__name__}: {error}")
        return False
    return True


if __name__ == "__main__":
    main()
