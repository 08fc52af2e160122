"""Says and counts what became of files where that costs records, may repeat some, or was decided by content alone."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from logfwd.sources.formats.text import Count, ignore

log = structlog.get_logger("logfwd.sources.file")

READ_AGAIN, GONE_UNREAD, RECOGNISED, EDITED = "read_again", "gone_unread", "recognised", "edited"
NOT_FOUND, FORGOTTEN, LET_GO = "not_found", "forgotten", "let_go"
COMPRESSED, DAMAGED, UNREADABLE = "compressed", "damaged", "unreadable"

NAMED = 5
"""How many files a line about many of them names."""


class Report:
    """One source's reports. `count_files` and `count_bytes` take what happened, and how many."""

    def __init__(self, count_files: Count = ignore, count_bytes: Count = ignore) -> None:
        self._count_files, self._count_bytes = count_files, count_bytes

    def _count(self, event: str, size: int) -> None:
        self._count_files(event, 1)
        self._count_bytes(event, size)

    def read_again(self, path: str, possible_repeat_bytes: int, reason: str) -> None:
        """A file is read from its start although it may be one that was read before; nothing is said of 0 bytes."""
        if not possible_repeat_bytes:
            return
        self._count(READ_AGAIN, possible_repeat_bytes)
        log.warning("file read again", path=path, possible_repeat_bytes=possible_repeat_bytes, reason=reason)

    def gone_unread(self, path: str, unread_bytes: int) -> None:
        """Bytes of a file that is gone were never read; nothing is said if there are none."""
        if unread_bytes > 0:
            self._count(GONE_UNREAD, unread_bytes)
            log.warning("file gone unread", path=path, bytes=unread_bytes)

    def recognised(self, path: str, before: str, offset: int) -> None:
        """A file takes over a position by its content."""
        self._count(RECOGNISED, offset)
        log.info("file recognised by its content", path=path, before=before, read_bytes=offset)

    def edited(self, path: str, offset: int) -> None:
        """Bytes before the position have changed; reading goes on behind them."""
        self._count(EDITED, offset)
        log.warning("file changed before its position", path=path, read_bytes=offset)

    def unfinished(self, path: str) -> None:
        """A record that was not whole when the format of its source was changed will never be."""
        log.warning("unfinished record lost", path=path, reason="the format of its source was changed")

    def not_found(self, path: str, offset: int) -> None:
        """Another file has the path now, and the one that was read is nowhere."""
        self._count(NOT_FOUND, offset)
        log.warning(
            "rotated file not found",
            path=path,
            read_bytes=offset,
            remedy="what was written behind read_bytes was never read; name where it is moved to in source.rotated",
        )

    def gone_while_stopped(self, files: Sequence[tuple[str, int]]) -> None:
        """Files, each with how much of it was read, are gone since an earlier life, and nothing has their names."""
        if files:
            paths, size = [path for path, _ in files[:NAMED]], sum(offset for _, offset in files)
            self._count_files(NOT_FOUND, len(files))
            self._count_bytes(NOT_FOUND, size)
            log.warning("files gone while stopped", files=len(files), paths=paths, read_bytes=size)

    def forgotten(self, positions: int) -> None:
        """Positions of absent files were given up early, because there were too many."""
        self._count_files(FORGOTTEN, positions)
        log.warning("positions of absent files forgotten", positions=positions)

    def let_go(self, path: str, unread_bytes: int) -> None:
        """A deleted file is closed although it may still be written to, or was not read to its end."""
        self._count(LET_GO, unread_bytes)
        log.warning("let go of a file that may still be written", path=path, bytes=unread_bytes)

    def unreadable(self, path: str, reason: str) -> None:
        """A file or directory cannot be read, or is not followed; it is tried again."""
        self._count_files(UNREADABLE, 1)
        log.warning("file unreadable", path=path, reason=reason)

    def compressed(self, path: str, size: int, reason: str) -> None:
        """A compressed file is not read; its plain size is not known."""
        self._count(COMPRESSED, size)
        log.warning("compressed file not read", path=path, bytes=size, reason=reason)

    def damaged(self, path: str, size: int, reason: str) -> None:
        """A compressed file cannot be decompressed to its end, so that nothing more is read of it."""
        self._count(DAMAGED, size)
        log.warning("compressed file damaged", path=path, bytes=size, reason=reason)
