"""`logbench primitives`: the operations of key exchange and authentication on their own, by every library here.

These are `cryptography` (whose OpenSSL the links use; pyOpenSSL's binding to it has no such calls of its own),
`pqcrypto` (an independent ML-KEM, and the only one with ML-KEM-512), and Go's standard library if a Go is installed,
because the figures of 2022 came from Go. Times are CPU time of the calling thread, so other programs do not distort
them (Go's are wall time, as `go test` measures it); they include a call from Python, about 0.1 µs. Operations take
turns.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pqcrypto import kem as pqcrypto_kems

from bench.figures import bootstrap, report

BATCH_NS = 2_000_000
GO_SECONDS = 300.0
GO_SOURCE = Path(__file__).with_name("primitives_test.go")
SENT_BYTES = {
    ("P-256", "keygen"): 65,
    ("X25519", "keygen"): 32,
    ("ML-KEM-512", "keygen"): 800,
    ("ML-KEM-512", "encaps"): 768,
    ("ML-KEM-768", "keygen"): 1184,
    ("ML-KEM-768", "encaps"): 1088,
    ("ML-KEM-1024", "keygen"): 1568,
    ("ML-KEM-1024", "encaps"): 1568,
    ("ECDSA P-256", "sign"): 72,
    ("ML-DSA-44", "sign"): 2420,
    ("ML-DSA-65", "sign"): 3309,
}
"""Size of the part of an operation's result that is sent to the peer: an uncompressed point (RFC 8446 §4.2.8.2), a
public key of RFC 7748, an encapsulation key or a ciphertext (FIPS 203, table 3), a signature (FIPS 204,
table 2; ECDSA's in DER, at most)."""
OF_2022: Sequence[report.Row] = tuple(
    {"library": "2022: Go, i7-9750H", "primitive": primitive, "operation": name, "ns": {"value": ns}, **memory}
    for primitive, name, ns, memory in (
        ("P-256", "derive", 52204.0, {"allocated_bytes": 256, "allocations": 5}),
        ("Kyber-512", "encaps", 11793.0, {"allocated_bytes": 832, "allocations": 3}),
    )
)
EXCHANGES = {"P-256": ("P-256",), "X25519": ("X25519",), "X25519MLKEM768": ("X25519", "ML-KEM-768")}
"""The primitives that each TLS group consists of."""


@dataclass(frozen=True)
class Kem:
    """One library's ML-KEM of one size. `generate` returns a key; public keys and ciphertexts are bytes."""

    library: str
    name: str
    generate: Callable[[], Any]
    public_bytes: Callable[[Any], bytes]
    load: Callable[[bytes], Any]
    encaps: Callable[[Any], tuple[bytes, bytes]]
    """A loaded public key → ciphertext and shared secret."""
    decaps: Callable[[Any, bytes], bytes]


@dataclass(frozen=True)
class Operation:
    """One operation to time."""

    library: str
    primitive: str
    name: str
    run: Callable[[], object]


def kems() -> list[Kem]:
    """Every ML-KEM available to Python here."""
    ours = (
        (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey, 768),
        (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey, 1024),
    )
    others = ((getattr(pqcrypto_kems, f"ml_kem_{size}"), size) for size in (512, 768, 1024))
    return [
        Kem(
            _cryptography(),
            f"ML-KEM-{size}",
            generate=private.generate,
            public_bytes=lambda key: key.public_key().public_bytes_raw(),
            load=public.from_public_bytes,
            encaps=lambda key: key.encapsulate()[::-1],
            decaps=lambda key, ciphertext: key.decapsulate(ciphertext),
        )
        for private, public, size in ours
    ] + [
        Kem(
            f"pqcrypto {version('pqcrypto')}",
            f"ML-KEM-{size}",
            generate=module.keygen,
            public_bytes=lambda pair: pair[0],
            load=bytes,
            encaps=module.encaps,
            decaps=functools.partial(_decaps_pair, module.decaps),
        )
        for module, size in others
    ]


def _decaps_pair(decaps: Callable[[bytes, bytes], bytes], pair: tuple[bytes, bytes], ciphertext: bytes) -> bytes:
    return decaps(pair[1], ciphertext)


def _cryptography() -> str:
    return f"cryptography {version('cryptography')}"


def operations() -> Iterator[Operation]:
    """Every operation that is timed in this process."""
    library, curve = _cryptography(), ec.SECP256R1()
    point, peer = ec.generate_private_key(curve), ec.generate_private_key(curve).public_key()
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    yield Operation(library, "P-256", "keygen", lambda: ec.generate_private_key(curve))
    yield Operation(library, "P-256", "derive", lambda: point.exchange(ec.ECDH(), peer))
    yield Operation(library, "X25519", "keygen", X25519PrivateKey.generate)
    yield Operation(library, "X25519", "derive", lambda: own.exchange(other))
    for kem in kems():
        yield from _kem_operations(kem)
    yield from _signatures(library)


def _signatures(library: str) -> Iterator[Operation]:
    """What a handshake with signatures does in place of encaps and decaps: over 130 bytes, as in CertificateVerify."""
    content = bytes(130)
    keys: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "ECDSA P-256": (ec.generate_private_key(ec.SECP256R1()), (ec.ECDSA(hashes.SHA256()),)),
        "ML-DSA-44": (mldsa.MLDSA44PrivateKey.generate(), ()),
        "ML-DSA-65": (mldsa.MLDSA65PrivateKey.generate(), ()),
    }
    for name, (key, more) in keys.items():
        signature = key.sign(content, *more)
        yield Operation(library, name, "sign", functools.partial(key.sign, content, *more))
        yield Operation(library, name, "verify", functools.partial(key.public_key().verify, signature, content, *more))


def _kem_operations(kem: Kem) -> Iterator[Operation]:
    key = kem.generate()
    public = kem.load(kem.public_bytes(key))
    ciphertext, _ = kem.encaps(public)
    yield Operation(kem.library, kem.name, "keygen", kem.generate)
    yield Operation(kem.library, kem.name, "encaps", lambda: kem.encaps(public))
    yield Operation(kem.library, kem.name, "decaps", lambda: kem.decaps(key, ciphertext))


def interoperate() -> list[dict[str, Any]]:
    """Encapsulate with one library to a key of another, decapsulate there, and compare the secrets."""
    rows = []
    for one, other in permutations(kems(), 2):
        if one.name == other.name:
            key = one.generate()
            ciphertext, secret = other.encaps(other.load(one.public_bytes(key)))
            agree = one.decaps(key, ciphertext) == secret
            rows.append({"primitive": one.name, "key_of": one.library, "encaps_of": other.library, "agree": agree})
    return rows


# -- measuring -----------------------------------------------------------------------------------------------------


def _batch(run: Callable[[], object], calls: int) -> int:
    """CPU nanoseconds of `calls` calls."""
    started = time.thread_time_ns()
    for _ in range(calls):
        run()
    return time.thread_time_ns() - started


def time_them(timed: Sequence[Operation], rounds: int) -> list[dict[str, Any]]:
    """Nanoseconds per call: the median over batches that took turns, and its interval."""
    calls = [max(BATCH_NS * 8 // max(_batch(each.run, 8), 1), 1) for each in timed]
    found: list[list[float]] = [[] for _ in timed]
    for number in range(rounds):
        order = range(len(timed))[:: -1 if number % 2 else 1]
        for index in order:
            found[index].append(_batch(timed[index].run, calls[index]) / calls[index])
    return [
        {
            "library": each.library,
            "primitive": each.primitive,
            "operation": each.name,
            "sent_bytes": SENT_BYTES.get((each.primitive, each.name), 0),
            "ns": bootstrap.estimate(values)._asdict(),
        }
        for each, values in zip(timed, found, strict=True)
    ]


def go_rows(directory: Path, rounds: int) -> list[dict[str, Any]]:
    """The same with Go's standard library, with allocations; no rows without Go 1.24 or later."""
    go = shutil.which("go")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "GOPROXY": "off"}
    if go is None:
        return []
    installed = subprocess.run([go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", installed.stdout)
    if found is None or (int(found[1]), int(found[2])) < (1, 24):
        return []
    shutil.copy(GO_SOURCE, directory)
    (directory / "go.mod").write_text("module primitives\n\ngo 1.24\n")
    argv = [go, "test", "-bench=.", "-benchmem", "-cpu=1", f"-count={rounds}", "-benchtime=5ms"]
    ran = subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=GO_SECONDS + rounds, check=False
    )
    if ran.returncode:
        raise click.ClickException(f"go test failed:\n{ran.stdout}{ran.stderr}")
    return parse_go(ran.stdout, f"Go {installed.stdout.strip().removeprefix('go')}")


def parse_go(output: str, library: str) -> list[dict[str, Any]]:
    """The output of `go test -bench`, one row per operation."""
    line = re.compile(r"BenchmarkGo/(\S+)/(\w+)\s+\d+\s+([\d.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op")
    runs: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    for primitive, operation, ns, allocated, allocations in line.findall(output):
        runs.setdefault((primitive, operation), []).append((float(ns), int(allocated), int(allocations)))
    return [
        {
            "library": library,
            "primitive": primitive,
            "operation": operation,
            "sent_bytes": SENT_BYTES.get((primitive, operation), 0),
            "ns": bootstrap.estimate([ns for ns, _, _ in values])._asdict(),
            "allocated_bytes": values[-1][1],
            "allocations": values[-1][2],
        }
        for (primitive, operation), values in runs.items()
    ]


def exchanges(rows: Sequence[report.Row]) -> list[dict[str, Any]]:
    """Time of both ends' key exchange in one handshake, by group.

    It is the sum over each part's operations; an elliptic curve's keygen and derive count twice.
    """
    found = []
    for library in dict.fromkeys(row["library"] for row in rows):
        ours = [row for row in rows if row["library"] == library]
        for group, parts in EXCHANGES.items():
            if {row["primitive"] for row in ours}.issuperset(parts):
                times = {name: 1 if name.startswith("ML-KEM") else 2 for name in parts}
                ns = sum(row["ns"]["value"] * times.get(row["primitive"], 0) for row in ours)
                found.append({"library": library, "group": group, "ns": ns})
    return found


@click.command(short_help="Measure key exchange, KEMs and signatures in each library.")
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=50,
    show_default=True,
    help="Batches of calls per operation, each of about 2 ms.",
)
@report.as_json_option
def primitives(rounds: int, as_json: bool) -> None:
    """ns/op of P-256, X25519, ML-KEM, ECDSA and ML-DSA in the libraries available here, next to the table of 2022.

    Times are CPU nanoseconds per operation with a 95 % interval; bytes are what an operation sends to the peer. Go's
    standard library is measured too if Go 1.24 or later is installed.

    Takes about 20 seconds. First the libraries are checked against each other: the exit code is 1 if they disagree.
    """
    agreement = interoperate()
    with report.workplace(as_json) as (directory, console), console.status("measuring"):
        rows = time_them(list(operations()), rounds)
        rows += go_rows(directory, rounds)
        whole = exchanges(rows)
    if as_json:
        more = {"openssl": backend.openssl_version_text(), "of_2022": OF_2022}
        report.emit("primitives", rows, exchanges=whole, interoperability=agreement, **more)
    else:
        notes = [f"cryptography uses {backend.openssl_version_text()}"]
        notes += [f"{each['library']}: {each['group']}, both ends: {each['ns'] / 1e3:.0f} µs" for each in whole]
        notes += [
            f"{each['primitive']}: key of {each['key_of']}, encaps of {each['encaps_of']}: "
            + ("the same secret" if each["agree"] else "DIFFERENT SECRETS")
            for each in agreement
        ]
        report.show(console, "primitives of key exchange and authentication", COLUMNS, [*OF_2022, *rows], notes)
    if not all(each["agree"] for each in agreement):
        raise click.ClickException("libraries disagree about ML-KEM")


def _ns(row: report.Row) -> str:
    ns = row["ns"]
    return f"{ns['value']:,.0f}" + (f" [{ns['low']:,.0f} … {ns['high']:,.0f}]" if "low" in ns else "")


def _optional(key: str) -> Callable[[report.Row], str]:
    return lambda row: str(row.get(key, "–"))


COLUMNS: Sequence[report.Column] = (
    ("library", lambda r: r["library"]),
    ("primitive", lambda r: r["primitive"]),
    ("operation", lambda r: r["operation"]),
    ("ns/op [95 %]", _ns),
    ("bytes sent", _optional("sent_bytes")),
    ("B/op", _optional("allocated_bytes")),
    ("allocs/op", _optional("allocations")),
)
