"""Sections that the configurations of both programs have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from streams.config.kinds import AuthorityFile, CertificateFile, KeyFile
from streams.config.toml import Fault
from streams.security.endpoint import Credentials, Files, MlDsaFiles, MlKemFiles


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


class Tls(Credentials, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: own leaf (with intermediates), its key, and the CA that peers must chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile
    mldsa: MlDsa | None = None
    mlkem: MlKem | None = None


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

    for name in sorted(set(names) & MODES.keys()):
        try:
            files_for(MODES[name], tls)
        except ConfigError as error:
            yield from ((problem.key, problem.message) for problem in error.problems)
