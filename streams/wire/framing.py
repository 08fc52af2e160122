"""Frames: a 4-byte big-endian length, then that many bytes. No I/O.

The length is checked before memory is taken, and memory for a frame that comes in several pieces only with its second
piece: so whoever feeds decides in between whether there is room (`announced_bytes`). A frame that lies whole in the
given bytes is passed on as a view of them; any other is gathered in a buffer of exactly its size, so that nothing is
copied twice. Views are read-only and stay valid for as long as they are held: input that the caller may overwrite is
copied first. Of a frame that is longer than `keep_bytes` only the beginning is passed on; the rest is read past.
"""

from __future__ import annotations

from collections.abc import Iterator

from streams.errors import Code, RemoteProtocolError

LENGTH_BYTES = 4
BEGINNING_BYTES = 64
"""What is kept of a frame that is read past: the head of a batch fits."""


class Deframer:
    """Bytes in, frames out. A change of `max_frame_bytes` or `keep_bytes` counts from the next frame on."""

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.keep_bytes = max_frame_bytes
        self.left_out = 0
        """How many bytes of the frame that was passed on last were not kept."""
        self._length = bytearray()
        self._size = 0
        """Of the frame under way; 0 between frames."""
        self._is_kept = True
        """Whether that frame is passed on whole: decided once, as `keep_bytes` may change while it comes."""
        self._first = b""
        """Its first piece, until the second one comes."""
        self._frame: bytearray | None = None
        self._filled = 0

    @property
    def mid_frame(self) -> bool:
        return bool(self._length) or self._size > 0

    @property
    def missing_bytes(self) -> int:
        """Fewer bytes than this cannot complete a frame."""
        return self._size - self._filled if self._size else LENGTH_BYTES - len(self._length)

    @property
    def announced_bytes(self) -> int:
        """The memory that the frame under way needs; 0 between frames, and for one that is read past."""
        return self._size if self._is_kept else 0

    @property
    def reads_past(self) -> bool:
        """True while a frame comes that is not kept."""
        return self._size > 0 and not self._is_kept

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """The frames completed by these bytes; the caller must take each one before asking for the next."""
        view, position = memoryview(data if isinstance(data, bytes) else bytes(data)), 0
        while position < len(view):
            if not self._size:
                missing = LENGTH_BYTES - len(self._length)
                self._length += view[position : position + missing]
                position += missing
                if len(self._length) < LENGTH_BYTES:
                    return
                size = self._checked_size()
                self._length.clear()
                self._is_kept = size <= self.keep_bytes
                if size <= len(view) - position and self._is_kept:
                    position, self.left_out = position + size, 0
                    yield view[position - size : position]
                    continue
                self._size = size
            taken = min(self._size - self._filled, len(view) - position)
            self._take(view[position : position + taken])
            position += taken
            if self._filled == self._size:
                yield self._whole()

    def forget(self) -> None:
        """Give up the frame under way, and its memory: nothing more is fed."""
        self._size, self._filled, self._first, self._frame = 0, 0, b"", None

    def _take(self, piece: memoryview) -> None:
        """The next bytes of the frame under way."""
        if not self._is_kept:
            self._first += bytes(piece[: BEGINNING_BYTES - len(self._first)])
        elif not self._filled:
            self._first = bytes(piece)
        else:
            if self._frame is None:
                self._frame = bytearray(self._size)
                self._frame[: self._filled] = self._first
                self._first = b""
            memoryview(self._frame)[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)

    def _whole(self) -> memoryview:
        found = memoryview(self._first if self._frame is None else self._frame).toreadonly()
        self.left_out = self._size - len(found)
        self.forget()
        return found

    def _checked_size(self) -> int:
        size = int.from_bytes(self._length, "big")
        if size > self.max_frame_bytes:
            raise RemoteProtocolError(Code.FRAME_TOO_LARGE, f"{size} bytes announced, {self.max_frame_bytes} allowed")
        if size == 0:
            raise RemoteProtocolError(Code.MALFORMED, "empty frame")
        return size
