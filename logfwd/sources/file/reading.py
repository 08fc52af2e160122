"""Reading in turns: one block of each file that has new data; a file waits for its predecessor in its family."""

from __future__ import annotations

import os
from math import inf

from logfwd.sources.file.followed import FollowedFiles
from logfwd.sources.file.identity import Moved
from logfwd.sources.file.plain import Damaged
from logfwd.sources.file.tail import BegunAnew, Compressed, Deleted, Filled, Replaced, Tail
from logfwd.sources.formats.joined import JoinedLines
from logfwd.sources.position import Block


class Reading:
    """Reads the followed files of one source."""

    def __init__(self, files: FollowedFiles, block_bytes: int) -> None:
        self._files, self._block_bytes = files, block_bytes

    def read(self, now: float, wall_ms: int) -> Block | None:
        """The next block, from each file in turn; None when nothing more can be read now."""
        if (
            block := self._files.stored.take_announced(wall_ms)
        ) is not None:  # what counts as read, before anything is read
            return block
        while self._files.ready:
            tail, successor = self._files.ready[0], None
            while tail.after is not None and not self._is_awaited(tail.after):
                if tail.after.ended:
                    tail.after = None
                else:
                    tail, successor = tail.after, tail
            if tail.after is not None:
                self._put_off(self._files.ready.popleft())
                continue
            if (block := self._read(tail, now, wall_ms)) is not None:
                self._files.ready.rotate(-1)
                return block
            if successor is not None:
                if not self._is_awaited(tail):
                    successor.after = None
            elif tail.ready:
                tail.ready = False
                self._files.ready.popleft()
        return None

    def _is_awaited(self, tail: Tail) -> bool:
        """True for a file that is not followed at the moment because the next scan has to find what it is."""
        return tail.ended and tail.replaced_at == self._files.adoptions

    def _put_off(self, tail: Tail) -> None:
        """Leave it to the next scan to queue this file again."""
        tail.ready, tail.mtime_ns = False, -1

    def _read(self, tail: Tail, now: float, wall_ms: int) -> Block | None:
        try:
            if tail.left_at == self._files.adoptions or not self._files.open(tail):
                tail.mtime_ns = -1  # so the next scan queues it again
                return None
            if tail.predecessor is not None and (block := self._inherited(tail, now, wall_ms)) is not None:
                return block
            block = tail.read(self._block_bytes, wall_ms, final=self._files.is_quiet(tail, now))
            if block is None:
                block = self._ended(tail, now, wall_ms)
                return block if block is None else self._files.records.with_fields(tail, block)
        except Replaced:
            return self._read(tail, now, wall_ms) if self._is_edited(tail) else None
        except Deleted:
            self._files.deleted(tail)
            self._files.scan_wanted = True
            return None
        except (Moved, Filled):  # the next scan finds where it is, and the copies that come before it
            self._files.scan_wanted = True
            tail.mtime_ns, tail.left_at = -1, self._files.adoptions
            return None
        except BegunAnew:
            self._files.emptied_unread(tail)
            return None
        except Compressed:  # the next scan finds what it is
            self._files.found_anew(tail)
            self._files.stored.forget([tail.key])
            return None
        except Damaged as error:  # it was whole when it was looked through: it has changed
            self._files.report.damaged(tail.path, tail.unread_bytes, str(error))
            self._files.replaced(tail)
            return None
        except OSError as error:
            self._files.trouble(tail, error)
            return None
        self._files.finder.troubles.over(tail.path)
        if block is not None:
            tail.active_at = now
            tail.size = max(tail.size, block.end)
            block = self._files.records.with_fields(tail, block)
        return block

    def _is_edited(self, tail: Tail) -> bool:
        try:
            return self._files.replaced(tail)
        except OSError as error:
            self._files.trouble(tail, error)
            return False

    def _inherited(self, tail: Tail, now: float, wall_ms: int, *, has_heir: bool = False) -> Block | None:
        """Before the first lines of a file: the rest of its predecessor, and then what is open at its end.

        A file without lines of its own inherits only for one that has some (`has_heir`); one that was begun does not.
        """
        other = tail.predecessor
        if other is None or not (has_heir or os.fstat(tail.fd).st_size > tail.place.offset):
            return None
        if tail.place.offset or other.ended or not isinstance(other.lines, JoinedLines):
            tail.predecessor = None
            return None
        if (block := self._inherited(other, now, wall_ms, has_heir=True)) is not None:
            return block
        if (block := self._read(other, now, wall_ms)) is not None:
            return block
        return tail.inherit(other, wall_ms) if other.lines.has_open else None

    def _ended(self, tail: Tail, now: float, wall_ms: int) -> Block | None:
        """At the end of a file: its open records, if they have waited for long enough."""
        if tail.lines is None or not tail.lines.has_open:
            return None
        if self._files.is_quiet(tail, now):
            for heir in self._files.by_age[tail.family]:
                if heir.predecessor is tail and not heir.place.offset and isinstance(tail.lines, JoinedLines):
                    heir.predecessor = None
                    return heir.inherit(tail, wall_ms)
            return tail.end_records(wall_ms, everything=True)
        wait_seconds = self._files.records.wait_seconds
        if tail.lines.can_end and wait_seconds is not None and now - tail.active_at >= wait_seconds:
            return tail.end_records(wall_ms, everything=False)
        return None

    def end_due(self, now: float) -> float:
        """Queue the files with open records that have waited for long enough; returns when the next one has."""
        wait_seconds, next_at = self._files.records.wait_seconds, inf
        if wait_seconds is None:
            return next_at
        for tail in self._files.opened.tails:
            if tail.lines is not None and tail.lines.can_end:
                if now - tail.active_at >= wait_seconds:
                    self._files.enqueue(tail)
                else:
                    next_at = min(next_at, tail.active_at + wait_seconds)
        return next_at
