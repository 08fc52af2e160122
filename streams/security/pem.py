"""What is wrong with a file that should hold PEM, in words to act on; a TLS library only says what it missed."""

from __future__ import annotations

import re
from pathlib import Path

CERTIFICATE, PRIVATE_KEY = "CERTIFICATE", "PRIVATE KEY"
"""Labels of RFC 7468; a key's label may begin with its kind, as in EC PRIVATE KEY."""

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_DER_SEQUENCE = b"\x30"
_CONVERTERS = {CERTIFICATE: "x509", PRIVATE_KEY: "pkey"}


def fault(path: Path, label: str) -> str:
    """Why a file has nothing with this label; empty if it has."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    found = [each.decode() for each in _LABEL.findall(data)]
    if any(each.endswith(label) for each in found):
        return ""
    if found:
        return f"it holds {', '.join(dict.fromkeys(found))} and no {label}"
    if data.startswith(_DER_SEQUENCE):
        return f"it is DER, not PEM; convert it: openssl {_CONVERTERS[label]} -inform DER -in FILE -out FILE"
    return "there is no PEM in it (-----BEGIN …)" if data else "it is empty"
