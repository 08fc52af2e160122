"""Frames: a 4-byte big-endian length, then that many bytes. No I/O.

The length is checked before memory is allocated. A frame that lies whole in the given bytes is passed on as a view of
them; any other is gathered in a buffer of exactly its size, so that nothing is copied twice. Views are read-only and
stay valid for as long as they are held: input that the caller may overwrite is copied first.
"""

from __future__ import annotations

from collections.abc import Iterator

from streams.errors import Code, RemoteProtocolError

LENGTH_BYTES = 4


class Deframer:
    """Bytes in, frames out. `max_frame_bytes` may be raised between two frames."""

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._length = bytearray()
        self._frame: bytearray | None = None
        self._filled = 0

    @property
    def mid_frame(self) -> bool:
        return bool(self._length) or self._frame is not None

    @property
    def missing_bytes(self) -> int:
        """Fewer bytes than this cannot complete a frame."""
        return LENGTH_BYTES - len(self._length) if self._frame is None else len(self._frame) - self._filled

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """The frames completed by these bytes; the caller must take each one before asking for the next."""
        view, position = memoryview(data if isinstance(data, bytes) else bytes(data)), 0
        while position < len(view):
            if self._frame is not None:
                taken = min(len(self._frame) - self._filled, len(view) - position)
                memoryview(self._frame)[self._filled : self._filled + taken] = view[position : position + taken]
                self._filled += taken
                position += taken
                if self._filled == len(self._frame):
                    whole, self._frame = memoryview(self._frame).toreadonly(), None
                    yield whole
                continue
            missing = LENGTH_BYTES - len(self._length)
            self._length += view[position : position + missing]
            position += missing
            if len(self._length) < LENGTH_BYTES:
                return
            size = self._checked_size()
            self._length.clear()
            if len(view) - position >= size:
                position += size
                yield view[position - size : position]
            else:
                self._frame, self._filled = bytearray(size), 0

    def _checked_size(self) -> int:
        size = int.from_bytes(self._length, "big")
        if size > self.max_frame_bytes:
            raise RemoteProtocolError(Code.FRAME_TOO_LARGE, f"{size} bytes announced, {self.max_frame_bytes} allowed")
        if size == 0:
            raise RemoteProtocolError(Code.MALFORMED, "empty frame")
        return size
