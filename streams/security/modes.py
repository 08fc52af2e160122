"""Named security modes: what a stream demands, as data. The only place where a mode is looked at.

Users name a mode and never write lists of algorithms. A mode is a TLS version, the key-exchange groups that a client
offers and a server accepts, and the algorithms that may authenticate a peer: its own key, and every signature of its
certificate chain. All are spelled as IANA does, and a KEM as FIPS 203 does.
Both ends check the result of a handshake before the first byte of data, and nothing ever falls back because something
failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from streams.errors import PolicyViolation
from streams.security.authentication import signed_with, strength
from streams.security.endpoint import Facts

TLS12, TLS13 = "TLSv1.2", "TLSv1.3"

X25519 = "X25519"
P256 = "secp256r1"
X25519MLKEM768 = "X25519MLKEM768"
SECP256R1MLKEM768 = "SecP256r1MLKEM768"
HYBRID_GROUPS = frozenset({X25519MLKEM768, SECP256R1MLKEM768})

ML_DSA = ("mldsa65",)
ML_KEM = ("ML-KEM-768",)
ECDSA = ("ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384")
ANY_AUTHENTICATION = (*ECDSA, "rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384", "rsa_pkcs1_sha256", "mldsa65")
"""What a server of somebody else's may authenticate with: its operator chose its certificate, not we."""


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One named mode. `groups` and `authentication` are ordered best first."""

    name: str
    version: str
    groups: tuple[str, ...]
    authentication: tuple[str, ...] = ECDSA
    chains: tuple[str, ...] = ()
    """The signatures accepted in the chain of a peer whose own key signs nothing; others are left to `check`."""
    classical_chain: bool = False
    """Whether the configuration lets the chain above a key of this mode be signed with anything."""
    section: str = "tls"
    """The section of the configuration with the files for this mode (`Files.section`)."""
    stored_key: bool = False
    """Whether the client has stored the server's key beforehand, so that no certificate of the server travels."""
    stack: str = "openssl"
    """The TLS stack that serves this mode; `stacks.py` knows them."""

    @property
    def experimental(self) -> bool:
        """Whether it runs on our own TLS, which nobody has audited."""
        return self.stack == "tls13"

    @property
    def takes_delegated(self) -> bool:
        """Whether a delegated credential (RFC 9345) can stand for a certificate's key: in TLS 1.3, and not stored."""
        return self.version == TLS13 and not self.stored_key

    @property
    def label(self) -> str:
        """The name as people are shown it before they use the mode."""
        return f"{self.name} (experimental, unaudited)" if self.experimental else self.name


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(name="classical-tls12", version=TLS12, groups=(P256,)),
        Mode(name="classical", version=TLS13, groups=(X25519,)),
        Mode(name="hybrid", version=TLS13, groups=(X25519MLKEM768,)),
        Mode(name="hybrid-preferred", version=TLS13, groups=(X25519MLKEM768, X25519)),
        Mode(name="hybrid-p256", version=TLS13, groups=(SECP256R1MLKEM768,)),
        Mode(
            name="pq-auth",
            version=TLS13,
            groups=(X25519MLKEM768,),
            authentication=ML_DSA,
            section="tls.mldsa",
        ),
        Mode(
            name="kemtls",
            version=TLS13,
            groups=(X25519MLKEM768,),
            authentication=ML_KEM,
            chains=("mldsa65", "mldsa87"),
            section="tls.mlkem",
            stack="tls13",
        ),
        Mode(
            name="kemtls-pdk",
            version=TLS13,
            groups=(X25519MLKEM768,),
            authentication=ML_KEM,
            chains=("mldsa65", "mldsa87"),
            section="tls.mlkem",
            stored_key=True,
            stack="tls13",
        ),
    )
}


def foreign(mode: Mode) -> Mode:
    """The same mode towards servers that are not ours (a Kafka cluster), whatever kind of key their CA signed."""
    return msgspec.structs.replace(mode, authentication=ANY_AUTHENTICATION)


def check(mode: Mode, facts: Facts) -> None:
    """Raise PolicyViolation if a handshake negotiated anything but what the mode demands."""
    if facts.version != mode.version or facts.group not in mode.groups:
        raise PolicyViolation(
            f"mode {mode.name} demands {mode.version} with {' or '.join(mode.groups)}, "
            f"the link has {facts.version} with {facts.group}"
        )
    if not _authenticated(mode, facts):
        raise PolicyViolation(
            f"mode {mode.name} demands a peer authenticated by {' or '.join(mode.authentication)}, "
            f"this one is by {facts.authentication}{_blame(mode, facts)}"
        )


def check_foreign(served: Iterable[Mode], facts: Facts) -> Mode:
    """The mode that the handshake of a client that is not ours fits; raises PolicyViolation if it fits none.

    How such a client is authenticated, if at all, is not the mode's affair.
    """
    together = list(served)
    for mode in together:
        if facts.version == mode.version and facts.group in mode.groups:
            return mode
    names = ", ".join(mode.name for mode in together)
    raise PolicyViolation(f"the link has {facts.version} with {facts.group}, which fits none of the modes {names}")


def _authenticated(mode: Mode, facts: Facts) -> bool:
    """The peer's own key is one that the mode names, and its chain is as strong as the weakest of these.

    For a mode that names classical keys, this leaves the chain of a post-quantum key to its CA.
    """
    if facts.authentication in mode.authentication:
        return True
    if signed_with(facts.certificate_algorithm) not in mode.authentication:
        return False
    return mode.classical_chain or strength(facts.authentication) >= min(map(strength, mode.authentication))


def _blame(mode: Mode, facts: Facts) -> str:
    """Says that the peer's own key would do, if so: then a CA above it is to be replaced, not the leaf."""
    if signed_with(facts.certificate_algorithm) not in mode.authentication:
        return ""
    return f": its own key is {facts.certificate_algorithm}, but its chain is not signed as strongly"


def is_downgrade(mode: Mode, group: str) -> bool:
    """True where a mode with a choice got less than its first choice."""
    return group != mode.groups[0]
