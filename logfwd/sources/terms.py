"""Kinds of keys that the [source] tables of several listeners have in common."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from streams.config.kinds import AuthorityFile, CertificateFile, KeyFile, ModeName, shown
from streams.security.modes import MODES


def check_socket_mode(mode: str) -> None:
    """Permissions in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise ValueError(f"{mode!r} is not a file mode; write three octal digits, as in '0660'")


SocketMode = Annotated[str, shown(check_socket_mode)]


class ListenerTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of a listener: its leaf (with intermediates), its key, and the CA of clients that need certificates."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile | None = None
    modes: Annotated[tuple[ModeName, ...], Meta(min_length=1)] = ("hybrid",)

    @property
    def unserved(self) -> str:
        """Those of its modes that are for forwarders alone, since they need files of another kind."""
        return ", ".join(name for name in self.modes if name in MODES and MODES[name].section != "tls")
