"""Sections that the configurations of both programs have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec

from streams.config.kinds import AuthorityFile, CertificateFile, KeyFile
from streams.config.toml import Fault
from streams.security.endpoint import Files, MlDsaFiles, MlKemFiles


class MlDsa(MlDsaFiles, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for mode pq-auth, with ML-DSA-65 keys: own leaf, its key, and the CA that peers must chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile


class MlKem(MlKemFiles, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for mode kemtls: own leaf with an ML-KEM-768 key, its key, and the ML-DSA CA that peers chain to."""

    certificate: CertificateFile
    key: KeyFile
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

    def sections(self) -> list[Files]:
        """The files of each section that there is."""
        found: list[Files] = []
        if self.certificate is not None and self.key is not None and self.ca is not None:
            found.append(Files(self.certificate, self.key, self.ca))
        return found + [each for each in (self.mldsa, self.mlkem) if each is not None]

    def incomplete(self) -> Iterator[Fault]:
        """Faults of a [tls] with some of its files."""
        files = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        lacking = [name for name, file in files.items() if file is None]
        if len(lacking) < len(files):
            yield from ((f"tls.{name}", "is missing; [tls] needs certificate, key and ca together") for name in lacking)


class SinkTls(Files, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for TLS to the sink: the receiver's certificate there, its key, and the CA of the sink's servers."""

    section: ClassVar[str] = "sink.tls"

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile


def lacking(tls: Tls, names: Iterable[str]) -> Iterator[Fault]:
    """Faults of a configuration that uses modes without the files that they need."""
    from streams.errors import ConfigError
    from streams.security.modes import MODES
    from streams.security.stacks import files_for

    incomplete = list(tls.incomplete())
    yield from incomplete
    for name in sorted(set(names) & MODES.keys()):
        if incomplete and MODES[name].section == Files.section:
            continue
        try:
            files_for(MODES[name], tls)
        except ConfigError as error:
            yield from ((problem.key, problem.message) for problem in error.problems)
