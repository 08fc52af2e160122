"""How long tests wait for what has to happen: so long that only a program at fault uses it up, never a busy machine."""

from __future__ import annotations

PATIENCE_SECONDS = 60.0
