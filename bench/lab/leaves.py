"""The certificates of an installation: an ECDSA and an ML-DSA authority, leaves of every kind for both programs, and
their renewal, in place, as an operator does it with `logfwd pki`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from streams.security import pki, stacks, stored_keys

HOSTS = ("localhost", "127.0.0.1")
DAYS, HOURS = 30, 24.0
AUTHORITIES: Mapping[str, Mapping[str, str]] = {"": {"ec": ""}, "mldsa": {"mldsa65": "", "mlkem768": "-kem"}}
"""Directory below pki/ → kinds of leaves, with what their names end in; the first is the authority's own kind."""


class Leaves:
    """All certificate files of one installation, in `directory`.

    A program's leaves are NAME.pem and mldsa/NAME.pem, and mldsa/NAME-kem.pem with an ML-KEM key. mldsa/receiver.pdk is
    the receiver's ML-KEM key for forwarders. A program that has delegated has mldsa/NAME-signs.pem and mldsa/NAME.dc.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory, self.mldsa = directory, directory / "mldsa"
        self._names: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
            "receiver": (("logreceiver",), HOSTS),
            "forwarder": ((identity,), ()),
        }

    def make(self) -> None:
        """Both authorities, and the first leaves."""
        for place, kinds in AUTHORITIES.items():
            pki.create_authority(self.directory / place, kind=next(iter(kinds)))
        for name in self._names:
            self.issue(name)

    def issue(self, name: str) -> None:
        """New leaves with new keys for a program, in place of those that it has."""
        identities, hosts = self._names[name]
        for place, kinds in AUTHORITIES.items():
            authority = pki.Authority.load(self.directory / place)
            for kind, ending in kinds.items():
                out = authority.directory / f"{name}{ending}"
                authority.issue(identities=identities, hosts=hosts, out=out, kind=kind, days=DAYS, force=True)
        if name == "receiver":
            stored_keys.store(self.mldsa / "receiver-kem.pem", self.mldsa / "receiver.pdk", force=True)

    def delegate(self, name: str) -> None:
        """A new key that lasts a day, delegated by a leaf which is made when it is needed first."""
        out, (identities, hosts) = self.mldsa / f"{name}-signs", self._names[name]
        certificate, key = out.with_name(f"{out.name}.pem"), out.with_name(f"{out.name}.key")
        if not certificate.exists():
            authority = pki.Authority.load(self.mldsa)
            authority.issue(identities=identities, hosts=hosts, out=out, kind="mldsa65", days=DAYS, delegates=True)
        stacks.delegate(
            certificate,
            key,
            self.mldsa / f"{name}.dc",
            kind="mlkem768",
            accepting=name == "receiver",
            hours=HOURS,
            force=True,
        )
