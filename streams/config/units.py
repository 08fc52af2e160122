"""Sizes and durations as people write them: "900KiB", "64kB", "200ms", "1h". A bare number means bytes or seconds."""

from __future__ import annotations

import math
import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SIZES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

SIZE_PATTERN = rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(SIZES)})$"
DURATION_PATTERN = rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(DURATIONS)})$"
MAX_BYTES = 1 << 62


def parse_size(value: object) -> int:
    """The size in bytes; raises ValueError with what to write instead."""
    number = _number(value, SIZES, SIZE_PATTERN, 'a size such as "900KiB", "64MB" or a number of bytes')
    if number > MAX_BYTES or number != math.floor(number):
        raise ValueError(f"{value!r} is not a whole number of bytes below 4 EiB")
    return int(number)


def parse_duration(value: object) -> float:
    """The duration in seconds; raises ValueError with what to write instead."""
    seconds = _number(value, DURATIONS, DURATION_PATTERN, 'a duration such as "200ms", "5s", "1h" or seconds')
    return round(float(seconds), 9)


def _number(value: object, units: dict[str, int] | dict[str, float], pattern: str, wanted: str) -> float:
    if isinstance(value, str) and len(value) <= 32 and (found := re.fullmatch(pattern, value)):
        unit = found[2]
        digits = value[: -len(unit)].strip()
        return (float(digits) if "." in digits else int(digits)) * units[unit]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_BYTES:
        return value
    raise ValueError(f"{value!r} is not {wanted}")


def show_size(count: float) -> str:
    """A size in the largest unit that divides it evenly."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % SIZES[unit] == 0:
            return f"{int(count) // SIZES[unit]}{unit}"
    return f"{int(count)}B"


def show_duration(seconds: float) -> str:
    """A duration in a unit that reads well."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % DURATIONS[unit] == 0:
            return f"{seconds / DURATIONS[unit]:.12g}{unit}"
    return f"{seconds * 1000:.12g}ms" if 0 < seconds < 1 else f"{seconds:.12g}s"
