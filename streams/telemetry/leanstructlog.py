"""structlog, imported without rich and greenlet.

This module must be the first of a program to import structlog: structlog imports rich wherever it is installed, for
tracebacks that carry the values of variables and that are never printed here. That is a quarter of the cost of a
program's start and 5 MB of its memory, so rich is hidden during that one import; and so is greenlet, which has no
threads here.
"""

from __future__ import annotations

import sys

_HIDDEN = {"rich", "greenlet"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]
try:
    import structlog
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

__all__ = ["structlog"]
