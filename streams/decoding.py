"""What msgspec raises for bytes that it cannot decode: beside its own errors also Python's."""

from __future__ import annotations

import msgspec

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
