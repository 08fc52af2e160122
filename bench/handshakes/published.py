"""The handshakes whose sizes are published, made again and measured on the wire.

Schwabe, Stebila and Wiggers, "Post-Quantum TLS Without Handshake Signatures" (CCS 2020), count the key exchange and
the server's authentication, with one intermediate certificate sent and the root not; the last two rows have the sizes
of FIPS 203 and FIPS 204 here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import uvloop

from bench.handshakes import mlkem512, wire_bytes
from bench.handshakes.authority import Authority
from bench.handshakes.server import answer
from bench.handshakes.tap import tapped
from streams.security.endpoint import ALPN
from streams.security.listener import listen
from streams.security.modes import TLS13
from streams.security.tls13.certificates import Trust, now
from streams.security.tls13.groups import GROUP_CODES
from streams.security.tls13.kem import KemKey
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.party import Tls13Party
from streams.security.tls13.schemes import SCHEME_CODES, KeySigner
from streams.security.tls13.settings import Settings
from streams.security.tls13.signature import Credential, Signature

HOST = "localhost"


class Handshake(NamedTuple):
    """A published handshake: the parts of its sum, and the kinds of keys with which it is made."""

    name: str
    published: tuple[int, ...]
    group: int
    leaf: str
    authorities: str
    remark: str = ""


PUBLISHED = (
    Handshake(
        "TLS 1.3, X25519, RSA-2048",
        (64, 272, 256, 256, 272, 256),
        GROUP_CODES["X25519"],
        "RSA-2048",
        "RSA-2048",
        "an RSAPublicKey of 2048 bits has 270 bytes in DER; the paper counts 272, twice",
    ),
    Handshake(
        "ML-KEM-512, ML-DSA-44 certificates",
        (1568, 1312, 2420, 2420, 1312, 2420),
        mlkem512.GROUP,
        "ML-DSA-44",
        "ML-DSA-44",
    ),
    Handshake(
        "KEMTLS with ML-KEM-512, ML-DSA-44 above",
        (1568, 800, 768, 2420, 1312, 2420),
        mlkem512.GROUP,
        "ML-KEM-512",
        "ML-DSA-44",
    ),
)


def rows() -> Iterator[dict[str, Any]]:
    """Each with its published and its measured sum."""
    with mlkem512.known():
        for each in PUBLISHED:
            yield {
                "handshake": each.name,
                "bytes": sum(each.published),
                "parts": each.published,
                "measured": sum(uvloop.run(_measure(each))),
                "remark": each.remark,
            }


async def _measure(each: Handshake) -> tuple[int, int]:
    """Bytes of the key exchange and of the server's authentication."""
    secrets: list[str] = []

    def note(label: str, random: bytes, secret: bytes) -> None:
        secrets.append(f"{label} {random.hex()} {secret.hex()}")

    server, client = (Tls13Party(made, now(), accepting=accepting) for made, accepting in _settings(each))
    client = Tls13Party(client.settings, now(), accepting=False, key_log=note)
    listener = await listen("127.0.0.1:0", server, answer, on_failure=_failed)
    facts, pieces = await tapped(listener.address, client)
    await listener.close()
    messages, wire = wire_bytes.take_apart(pieces, cipher=facts.cipher, key_log="\n".join(secrets))
    weights = wire_bytes.weigh(messages, wire, TLS13)
    return weights.key_exchange, weights.server_authentication


def _settings(each: Handshake) -> Iterator[tuple[Settings, bool]]:
    """Those of the server, then of the client, which shows no certificate."""
    root = Authority(each.authorities)
    chain, key = Authority(each.authorities, root).leaf(each.leaf, HOST)
    schemes = (SCHEME_CODES["mldsa44"], SCHEME_CODES["rsa_pss_rsae_sha256"])
    for accepting in (True, False):
        way: Signature | KemAuthentication
        if each.leaf == "ML-KEM-512":
            own = KemCredential(chain, KemKey(key)) if accepting else None
            way = KemAuthentication((mlkem512.SCHEME,), schemes, own)
            trust: Trust = mlkem512.BenchTrust([root.certificate])
        else:
            way = Signature(schemes, Credential(chain, KeySigner(key)) if accepting else None)
            trust = Trust([root.certificate])
        yield (
            Settings(
                groups=(each.group,), suites=(0x1301,), authentication=way, trust=trust, alpn=ALPN, ask_client=False
            ),
            accepting,
        )


def _failed(peer: str, error: Exception) -> None:
    raise AssertionError(f"{peer}: {error}") from error
