"""When a link is due for its replacement by a fresh one, which has fresh keys. No I/O.

OpenSSL never changes keys by itself and pyOpenSSL cannot ask it to, so links are replaced instead. An endpoint that
renews its keys is spared the first two limits. After the third every link is replaced: only a new handshake has a new
key exchange and looks at the certificates again.
"""

from __future__ import annotations

import random

ROTATE_RECORDS = 1 << 23
ROTATE_BYTES = 64 << 30
ROTATE_SECONDS = 3600.0


class Rotation:
    """One link's limits: ±20 %, so that links that were made together are not replaced together."""

    def __init__(self) -> None:
        self._share = random.uniform(0.8, 1.2)  # noqa: S311 — spreads load, hides nothing

    def is_due(self, records: int, sent_bytes: int, age_seconds: float, *, renews_keys: bool) -> bool:
        """True for a link that has sent so much, or is so old."""
        is_worn = records > ROTATE_RECORDS * self._share or sent_bytes > ROTATE_BYTES * self._share
        return (is_worn and not renews_keys) or age_seconds > ROTATE_SECONDS * self._share
