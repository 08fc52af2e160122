"""`logfwd completion`: prints a shell's completion of this program."""

from __future__ import annotations

from streams import completing

completion = completing.make("logfwd")
