"""Compressed files: whose content each of them has, which is known before a record of it is read.

A gzip or zstd file is looked through once, a few MiB at a time, as soon as nobody seems to write to it any more. If it
is whole, then its plain content

    fits a position whose own file is gone or emptied    takes over the position: what is behind it is read, if anything
    fits one whose file is there                         is a copy: nothing, until that file is gone
    fits none                                            is new with `compressed = "read"`; else this is said

At most one of them is read at a time, and new files of its family wait for it, so that memory is bounded and records
stay in order. What is compressed otherwise, cut off, damaged, or becomes a thousand times larger is said and not read.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

from msgspec import structs

from logfwd.sources.file.followed import UNWRITTEN_SECONDS, FollowedFiles
from logfwd.sources.file.identity import HEAD_BYTES, FileId, Moved, Place, archive_of, open_same
from logfwd.sources.file.packed import Content, Packed
from logfwd.sources.file.plain import READABLE, SIGNATURE_BYTES, Damaged, Plain, compression_of, plain_pieces
from logfwd.sources.file.released import Lost
from logfwd.sources.file.scan import Found
from logfwd.sources.file.tail import Tail
from logfwd.sources.file.which import ENOUGH_BYTES, LEAST_BYTES
from logfwd.sources.file.writers import has_writer
from logfwd.sources.position import tail_hash

PIECES_A_STEP = 8


class Archives:
    """The compressed files of one source that are not followed, by what they are to its positions."""

    def __init__(self, files: FollowedFiles) -> None:
        self._files, self._settings = files, files.settings
        self._known: dict[FileId, Packed] = {}
        self._looking: tuple[Packed, Iterator[None]] | None = None

    def __contains__(self, id_: FileId) -> bool:
        return id_ in self._known

    @property
    def is_busy(self) -> bool:
        """True while something has to be found out about one of them."""
        return any(packed.is_open for packed in self._known.values())

    def sort_out(self, unknown: list[Found], now: float) -> list[Found]:
        """Those of these files that are not compressed. The others are kept here."""
        known: dict[FileId, Packed] = {}
        plain: list[Found] = []
        for file in unknown:
            packed = self._known.get(file.id)
            if packed is None or (packed.file.size, packed.file.mtime_ns) != (file.size, file.mtime_ns):
                packed = self._first_look(file, now)
            if packed is None:
                plain.append(file)
            else:
                packed.file = file
                known[file.id] = packed
        self._known = known
        return plain

    def _first_look(self, file: Found, now: float) -> Packed | None:
        """How the file is compressed, and how its content begins; None if it is not, or cannot be read."""
        try:
            fd = open_same(file.path, file.id)
        except (Moved, OSError):
            return None
        try:
            name, head = compression_of(os.pread(fd, SIGNATURE_BYTES, 0)), b""
            if name in READABLE:
                head = Plain(fd).pread(HEAD_BYTES, self._settings.header_bytes)
        except Damaged:
            pass
        except OSError:
            return None
        finally:
            os.close(fd)
        return Packed(file, name, now, head) if name else None

    # -- looking through -----------------------------------------------------------------------------------------

    def step(self, now: float) -> bool:
        """Look through a part of one file; False if none is under way."""
        if self._looking is not None and self._known.get(self._looking[0].file.id) is not self._looking[0]:
            self._looking = None  # it has changed
        if self._looking is None:
            due = (each for each in self._known.values() if each.wanted and each.content is None and not each.damage)
            packed = min((each for each in due if self._is_closed(each, now)), key=_age, default=None)
            if packed is None:
                return False
            self._looking = packed, self._look_through(packed)
        for _ in range(PIECES_A_STEP):
            try:
                next(self._looking[1])
            except StopIteration:
                self._looking, self._files.scan_wanted = None, True
                break
        return True

    def _is_closed(self, packed: Packed, now: float) -> bool:
        """True if nobody writes to the file, as far as can be known."""
        try:
            fd = open_same(packed.file.path, packed.file.id)
        except (Moved, OSError):
            return False
        writer = has_writer(fd)
        os.close(fd)
        return now - packed.since >= UNWRITTEN_SECONDS if writer is None else not writer

    def _look_through(self, packed: Packed) -> Iterator[None]:
        content = Content.to_compare([lost.place for lost in self._candidates(packed)])
        try:
            fd = open_same(packed.file.path, packed.file.id)
        except (Moved, OSError):
            return
        try:
            for piece in plain_pieces(fd):
                content.add(piece)
                yield
            packed.content = content
        except Damaged as error:
            packed.damage = str(error)
        except OSError as error:
            packed.damage = error.strerror or str(error)
        finally:
            os.close(fd)

    # -- deciding ------------------------------------------------------------------------------------------------

    def held_families(self) -> set[str]:
        """Names whose new files wait, because an older one may have to be read first."""
        held: set[str] = set()
        for packed in self._known.values():
            if packed.is_open:
                absent = [lost for lost in self._candidates(packed) if not lost.seen]
                held |= {name for lost in absent for name in (lost.family, lost.path)}
                if self._settings.compressed == "read":
                    held.add(packed.file.family)
        return held

    def adopt(self, counts_as_read: Callable[[Found], bool], now: float) -> list[Tail]:
        """Decide about each file of which enough is known, oldest first; returns the one to be read, if any."""
        adopted: list[Tail] = []
        for packed in sorted(self._known.values(), key=_age):
            if packed.settled != self._files.lost.generation and not any(
                tail.plain for tail in self._files.opened.tails
            ):
                packed.settled = None
                if (tail := self._decide(packed, counts_as_read, now)) is not None:
                    adopted.append(tail)
        waiting = [packed.head for packed in self._known.values() if packed.settled is None and packed.head]
        self._files.plain_heads = waiting
        for lost in list(self._files.deleted_originals.values()):
            if not any(map(lost.place.begins_with, waiting)):
                del self._files.deleted_originals[lost.key]
                self._files.report.gone_unread(lost.path, lost.unread_bytes)
                self._files.stored.forget([lost.key])
        return adopted

    def _decide(self, packed: Packed, counts_as_read: Callable[[Found], bool], now: float) -> Tail | None:
        if packed.compression not in READABLE:
            return self._unexplained(packed, counts_as_read, now, f"it is a file of {packed.compression}")
        if packed.damage:
            if now - packed.since >= self._settings.rotated_wait_seconds:
                self._settle(packed)
                self._say(packed, self._files.report.damaged, packed.damage)
            return None
        candidates, original = self._candidates(packed), self._has_original(packed)
        reads = self._settings.compressed == "read" and not counts_as_read(packed.file)
        packed.is_copy = original
        if packed.head and not candidates and not (reads and (packed.file.configured or packed.file.rotated)):
            return (
                None if original else self._unexplained(packed, counts_as_read, now, "nothing known fits its content")
            )
        packed.wanted = True
        if packed.content is None:
            return None
        if not packed.content.size:
            return self._unexplained(packed, lambda _: True, now, "")
        fits = {lost.key: packed.content.fits(lost.place) for lost in candidates}
        if None in fits.values():
            packed.content = None  # to be looked through again, with this position in mind
            return None
        fitting = [lost for lost in candidates if fits[lost.key] or self._was_read_beyond(lost, packed.content)]
        absent = [lost for lost in fitting if not lost.seen]
        packed.is_copy = not absent and (original or bool(fitting))
        if absent:
            return self._take_over(packed, max(absent, key=lambda lost: lost.place.offset), now)
        if packed.is_copy:
            return None
        return self._unexplained(packed, counts_as_read, now, "nothing known fits its content")

    def _was_read_beyond(self, lost: Lost, content: Content) -> bool:
        """True for the beginning of a file that was still written to after it was compressed, or copied."""
        if content.size >= lost.place.offset:
            return False
        return lost.truncated or lost.key in self._files.deleted_originals or content.is_beginning_of(lost.place)

    def _candidates(self, packed: Packed) -> list[Lost]:
        """Positions that its content begins like, by enough to prove something."""
        deleted = [each for each in self._files.deleted_originals.values() if each.place.begins_with(packed.head)]
        return [
            lost
            for lost in (*self._files.alike.begin_as(packed.head, packed.file.family), *deleted)
            if lost.place.head_bytes >= (LEAST_BYTES if lost.has_family(packed.file.family) else ENOUGH_BYTES)
        ]

    def _has_original(self, packed: Packed) -> bool:
        """True if a followed file has this content, or begins like it."""
        head, start, content = packed.head, self._settings.header_bytes, packed.content
        for tail in self._files.tails.values():
            if tail.family == packed.file.family or tail.place.head == (start, len(head), tail_hash(head)):
                try:
                    fd = open_same(tail.path, tail.id) if tail.fd < 0 else os.dup(tail.fd)
                except (Moved, OSError):
                    continue
                try:
                    begins = bool(head) and os.pread(fd, len(head), start) == head
                    last = content.last if content is not None else b""
                    at = content.size - len(last) if content is not None else 0
                    if begins and os.pread(fd, len(last), at) == last:
                        return True
                finally:
                    os.close(fd)
        return False

    def _take_over(self, packed: Packed, lost: Lost, now: float) -> Tail | None:
        """Go on in a compressed file from the position of another one."""
        assert packed.content is not None
        place = lost.place
        if place.offset > packed.content.size:
            last = packed.content.last
            place = structs.replace(
                place, offset=packed.content.size, tail_bytes=len(last), tail_hash=tail_hash(last), state=b""
            )
        tail = self._follow(packed, lost.key, lost.family, place, now)
        if packed.file.id not in self._known:
            self._files.report.recognised(packed.file.path, lost.path, place.offset)
        return tail

    def _unexplained(
        self, packed: Packed, counts_as_read: Callable[[Found], bool], now: float, reason: str
    ) -> Tail | None:
        """What becomes of a compressed file that is not the content of another one."""
        file = packed.file
        place = Place(file.id[1], head_start=self._settings.header_bytes)
        is_ours = file.configured or bool(file.rotated)
        if is_ours and counts_as_read(file):
            return self._follow(packed, uuid.uuid4().hex, file.family, place, now, is_read=True)
        if is_ours and self._settings.compressed == "read" and packed.content is not None:
            return self._follow(packed, uuid.uuid4().hex, file.family, place, now)
        self._say(packed, self._files.report.compressed, reason)
        self._settle(packed)
        return None

    @staticmethod
    def _say(packed: Packed, report: Callable[[str, int, str], None], reason: str) -> None:
        if not packed.is_said and (packed.file.configured or packed.file.rotated):
            packed.is_said = True
            report(packed.file.path, packed.file.size, reason)

    def _settle(self, packed: Packed) -> None:
        packed.settled = self._files.lost.generation

    def _follow(
        self, packed: Packed, key: str, family: str, place: Place, now: float, *, is_read: bool = False
    ) -> Tail | None:
        """Read the rest of a file, if it has one; its position is stored in any case."""
        file, files = packed.file, self._files
        try:
            fd = open_same(file.path, file.id)
        except (Moved, OSError):
            files.scan_wanted = True
            return None
        try:
            plain_bytes = packed.content.size if packed.content is not None and not is_read else 0
            place = place.in_file(fd, archive_of(fd, plain_bytes))
        finally:
            os.close(fd)
        encoding = self._settings.encoding
        tail = Tail(key, file.path, family, file.id, place, encoding, gone=True, active_at=now, rotated_at=now)
        has_rest = place.offset < plain_bytes or bool(place.state)
        if has_rest:
            if not files.start(tail):
                return None
            tail.announce = True
        files.lost.discard(key)
        files.deleted_originals.pop(key, None)
        del self._known[file.id]
        if has_rest:
            return tail
        written_ms = file.mtime_ns // 1_000_000
        lost = Lost(key, file.path, family, place, written_ms, seen=True, id=file.id)
        files.lost.add(lost)
        files.stored.offsets.setdefault(key, place.offset)
        files.stored.announced[key] = lost.position()
        return None


def _age(packed: Packed) -> tuple[bool, int, int]:
    return packed.file.age_order
