"""Sections that the configurations of both programs have in common."""

from __future__ import annotations

from streams.kinds import AuthorityFile, CertificateFile, KeyFile
from streams.security.endpoint import Credentials


class Tls(Credentials, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: own leaf (with intermediates), its key, and the CA that peers must chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile
