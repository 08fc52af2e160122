"""The order in which the files of a family are read: oldest first, whatever order they are found in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

from logfwd.sources.file.identity import FileId
from logfwd.sources.file.names import age_order
from logfwd.sources.file.scan import Found
from logfwd.sources.file.tail import Tail


def line_up(families: dict[str, list[Tail]], adopted: list[Tail], found: Mapping[FileId, Found]) -> None:
    """Give each new file its place in its family, by this scan's listing: one that is found late may be an old one.

    It waits for the file before it, and the one behind it waits for it, unless that was begun without it.
    """
    age = partial(_age, found)
    for tail in sorted(adopted, key=age):
        family = families.setdefault(tail.family, [])
        at = next((at for at in range(len(family), 0, -1) if age(family[at - 1]) <= age(tail)), 0)
        family.insert(at, tail)
        for before, after in pairwise(family[max(at - 1, 0) : at + 2]):
            if after is tail or not after.place.offset:
                after.after = after.predecessor = before


def unread_after(families: Mapping[str, list[Tail]], left_out: Tail, found: Mapping[FileId, Found]) -> list[Tail]:
    """The files of its family that come after one that could not be opened, and of which nothing was read yet."""
    family = families.get(left_out.family, [])
    return [tail for tail in family if tail.is_unread and _age(found, tail) > _age(found, left_out)]


def _age(found: Mapping[FileId, Found], tail: Tail) -> tuple[bool, int, int]:
    file = found.get(tail.id)  # what is not listed is older than what is
    return (False, -1, 0) if file is None else age_order(file.path, tail.family, file.mtime_ns)
