"""Which followed file a new one may be a copy of, or a new beginning: by name and content. Both have to be compared."""

from __future__ import annotations

import os
from collections.abc import Iterable

from logfwd.sources.file.alike import CANDIDATES, LIKE
from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.identity import Head, begins_alike, head_of, open_same
from logfwd.sources.file.names import bases
from logfwd.sources.file.scan import Found
from logfwd.sources.file.tail import Tail
from logfwd.sources.file.which import ENOUGH_BYTES, LEAST_BYTES


class Originals:
    """Finds files of one source that have to do with a new one, as of one scan."""

    def __init__(self, files: FollowedFiles) -> None:
        self._files = files
        self._by_name: dict[str, list[Tail]] = {}
        """The followed files by path and family, and by their heads; empty until this scan asks for them."""
        self._by_head: dict[Head, list[Tail]] = {}
        self._new: dict[str, Found] = {}
        """New files by path: a rotated file may be a copy of one that is not followed yet."""

    def begin_scan(self) -> None:
        """Forget what was followed at the last scan."""
        self._by_name, self._by_head, self._new = {}, {}, {}

    def note_new(self, files: Iterable[Found]) -> None:
        """Note the files that this scan has to decide about."""
        self._new = {file.path: file for file in files if file.size}

    def kept_bytes(self, file: Found, tail: Tail) -> int:
        """How much of a new file may have been read from another one, gone or followed, or deleted and still open."""
        alike, names = self._candidates(file, tail.fd, tail), self._by_name.get(file.path, [])
        for each in (*alike, *names):
            is_like = each.is_deleted and each.size >= LEAST_BYTES and begins_alike(each.fd, tail.fd)
            if is_like or (each.is_deleted and each.place.kept_bytes(tail.fd, same=False)):
                return min(file.size, each.size)  # the rest of it is read, too
        kept = [each.place.kept_bytes(tail.fd, same=False) for each in alike[:LIKE] if each.place.archive is None]
        return max(*kept, self._files.alike.kept_bytes(file, tail.fd), 0)

    def original_of(self, file: Found, tail: Tail) -> str | None:
        """The path of a followed file, still whole, of which this may be a copy, perhaps an unfinished one."""
        for original in self._candidates(file, tail.fd, tail):
            if original.is_deleted:  # it will not be emptied: what is like it is another file
                continue
            # not counted among the open files: the two have to be open together, even if the limit is one
            fd = open_same(original.path, original.id) if original.fd < 0 else os.dup(original.fd)
            try:
                if original.place.is_of(fd) is False:
                    self._files.deleted(original)
                    self._files.scan_wanted = True
                elif self._files.beginnings.is_beginning(file, tail.fd, original.place, fd):
                    return original.path
                elif original.is_unread and not original.begins_as_found(fd):
                    self._files.emptied_unread(original)
                elif original.place.fits(fd) or not self._files.replaced(original):
                    continue
                elif self._files.beginnings.is_beginning(file, tail.fd, original.place, fd):  # it was edited
                    return original.path
            finally:
                os.close(fd)
        return self._new_original(file, tail)

    def _new_original(self, file: Found, tail: Tail) -> str | None:
        original = self._new.get(file.family) if file.path != file.family else None
        if original is None:
            return None
        try:
            fd = open_same(original.path, original.id)
        except OSError:
            return None
        try:
            return original.path if begins_alike(tail.fd, fd) else None
        finally:
            os.close(fd)

    def were_read_beyond(self, file: Found, fd: int, offset: int) -> bool:
        """True for a copy of a followed file of which more than so much was read."""
        originals = self._candidates(file, fd) if file.path != file.family else ()
        return any(each.fd >= 0 and each.place.offset > offset and begins_alike(fd, each.fd) for each in originals)

    def _candidates(self, file: Found, fd: int, tail: Tail | None = None) -> list[Tail]:
        """Followed files of which this may be a copy: by its name, or by at least 1 KiB of equal content."""
        if not self._by_name:
            for each in self._files.tails.values():
                if each is not tail:
                    self._add(each)
        names = dict.fromkeys((file.family, *bases(file.path)) if file.path != file.family else ())
        found = [each for name in names for each in self._by_name.get(name, [])[-CANDIDATES:]]
        head = head_of(fd, self._files.settings.header_bytes)
        if head[1] >= ENOUGH_BYTES:
            found += self._by_head.get(head, [])[:CANDIDATES]
        return [each for each in dict.fromkeys(found) if each is not tail and not each.ended]

    def note(self, tail: Tail) -> None:
        """Note a file that is followed from now on."""
        if self._by_name:
            self._add(tail)

    def _add(self, tail: Tail) -> None:
        self._by_head.setdefault(tail.place.head, []).append(tail)
        for name in {tail.path, tail.family, *bases(tail.path)}:
            self._by_name.setdefault(name, []).append(tail)
