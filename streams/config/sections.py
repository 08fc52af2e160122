"""Sections that the configurations of both programs have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from streams.config.kinds import AuthorityFile, CertificateFile, DelegatedFile, KeyFile, StoredKeyFile
from streams.config.toml import Fault
from streams.security.endpoint import DelegatedFiles, Files, KeyPair, MlDsaFiles, MlKemFiles


class MlDsa(MlDsaFiles, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for mode pq-auth, with ML-DSA-65 keys: own leaf, its key, and the CA that peers must chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile


class Previous(KeyPair, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of a leaf that was replaced, and its key."""

    certificate: CertificateFile
    key: KeyFile


class MlKem(MlKemFiles, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for mode kemtls: own leaf with an ML-KEM-768 key, its key, and the ML-DSA CA that peers chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile
    stored_keys: tuple[StoredKeyFile, ...] = ()
    previous: tuple[Previous, ...] = ()


class Delegated(DelegatedFiles, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files in place of those with the delegated key's kind: a leaf that signs, a delegated key, and the CA."""

    certificate: CertificateFile
    key: DelegatedFile
    ca: AuthorityFile


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: own leaf (with intermediates), its key, and the CA that peers must chain to; all three or none.

    A host without classical modes has only the tables below it.
    """

    certificate: CertificateFile | None = None
    key: KeyFile | None = None
    ca: AuthorityFile | None = None
    mldsa: MlDsa | None = None
    mlkem: MlKem | None = None
    delegated: Delegated | None = None
    accept_delegated: bool = False

    def sections(self) -> list[Files]:
        """The files of each section that there is."""
        found: list[Files] = []
        if self.certificate is not None and self.key is not None and self.ca is not None:
            found.append(Files(self.certificate, self.key, self.ca))
        return found + [each for each in (self.mldsa, self.mlkem, self.delegated) if each is not None]

    def incomplete(self) -> Iterator[Fault]:
        """Faults of a [tls] with some of its files."""
        files = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        lacking = [name for name, file in files.items() if file is None]
        if len(lacking) < len(files):
            yield from ((f"tls.{name}", "is missing; [tls] needs certificate, key and ca together") for name in lacking)


class SinkFiles(Files, frozen=True):
    """The receiver's certificate towards its sink."""

    section: ClassVar[str] = "sink.tls"


class SinkTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for TLS to the sink: the CA of its servers and, if they ask for one, our certificate and its key."""

    section: ClassVar[str] = SinkFiles.section

    certificate: CertificateFile | None = None
    key: KeyFile | None = None
    ca: AuthorityFile

    @property
    def own(self) -> Files | None:
        """With our certificate; None if we show none."""
        if self.certificate is None or self.key is None:
            return None
        return SinkFiles(self.certificate, self.key, self.ca)

    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.ca) if path is not None)

    def incomplete(self) -> Iterator[Fault]:
        """The fault of a certificate without its key, or the other way round."""
        for name, file, other in (("key", self.key, self.certificate), ("certificate", self.certificate, self.key)):
            if file is None and other is not None:
                yield f"{self.section}.{name}", "is missing; certificate and key belong together, or leave out both"


def lacking(tls: Tls, names: Iterable[str], *, accepting: bool) -> Iterator[Fault]:
    """Faults of a configuration that uses modes without the files that they need, or has those of the other role."""
    from streams.errors import ConfigError
    from streams.security.modes import MODES
    from streams.security.stacks import files_for

    incomplete = list(tls.incomplete())
    yield from incomplete
    known = [MODES[name] for name in sorted(set(names) & MODES.keys())]
    for mode in known:
        if incomplete and mode.section == Files.section:
            continue
        try:
            files_for(mode, tls)
        except ConfigError as error:
            yield from ((problem.key, problem.message) for problem in error.problems)
    yield from _stored_keys(tls.mlkem, [mode.name for mode in known if mode.stored_key], accepting=accepting)


def _stored_keys(files: MlKem | None, names: list[str], *, accepting: bool) -> Iterator[Fault]:
    if files is None:
        return
    if accepting and files.stored_keys:
        yield (
            "tls.mlkem.stored_keys",
            "is for forwarders; a receiver has its own key and, after it was replaced, previous",
        )
    if not accepting and files.previous:
        yield "tls.mlkem.previous", "is for receivers; a forwarder has only its present key"
    if names and not accepting and not files.stored_keys:
        text = f"is missing; mode {names[0]} needs the keys of its receivers: make them with `logfwd pki pdk`"
        yield "tls.mlkem.stored_keys", text
