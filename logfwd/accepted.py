"""Which original streams were configured last, kept in state_dir: a start must not go round the guard of reloads.

A list of names in `streams.json`. One that is damaged is taken for none, and said: the guard then begins anew.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
import structlog

from streams.decoding import MALFORMED
from streams.files import write_atomically

NAME = "streams.json"

log = structlog.get_logger("logfwd")


def load(state_dir: Path) -> frozenset[str]:
    """The names; none before the first start."""
    path = state_dir / NAME
    try:
        return frozenset(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return frozenset()
    except (OSError, *MALFORMED) as error:
        log.warning("accepted streams not known", path=str(path), reason=str(error))
        return frozenset()


def store(state_dir: Path, streams: Collection[str]) -> None:
    """Replace the names; a disk that takes nothing is no reason to stop."""
    path = state_dir / NAME
    try:
        write_atomically(path, msgspec.json.encode(sorted(streams)), mode=0o600)
    except OSError as error:
        log.warning("accepted streams not stored", path=str(path), reason=str(error))
