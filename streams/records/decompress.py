"""What the zstd frames of a batch's records hold, within a limit: whatever the bytes are, memory stays within it.

Nothing but BatchCorrupt is raised.
"""

from __future__ import annotations

import threading

import zstandard

from streams.errors import BatchCorrupt

_MAX_WINDOW_BYTES = 8 * 1024 * 1024  # what RFC 8878 §3.1.1.1.2 asks every decoder to support; ours need less
_MAX_BLOCK_BYTES, _BLOCK_HEADER_BYTES, _RUN_OF_ONE_BYTE = 128 * 1024, 3, 1  # RFC 8878 §3.1.1.2
_MAGIC, _CHECKSUM_BYTES = b"\x28\xb5\x2f\xfd", 4
_MAX_KEPT_BYTES = 16 * 1024 * 1024


class _Decompressor(threading.local):
    """Threads must not share a zstd context, nor the room for what comes out.

    The room is kept: the system takes longer to hand out fresh memory than zstd does to fill it.
    """

    def __init__(self) -> None:
        self.context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self.room = bytearray()

    def room_of(self, byte_count: int) -> memoryview:
        room = self.room
        if len(room) < byte_count:
            room = bytearray(byte_count)
            if byte_count <= _MAX_KEPT_BYTES:
                self.room = room
        return memoryview(room)[:byte_count]


_decompressor = _Decompressor()


def unzstd(body: memoryview, max_bytes: int) -> bytes:
    """What one or more whole zstd frames hold; BatchCorrupt for damage, anything else behind them, and too much."""
    try:
        room = _decompressor.room_of(min(_most_content_bytes(body, max_bytes), max_bytes) + 1)
        with _decompressor.context.stream_reader(body, read_across_frames=True) as reader:
            byte_count = reader.readinto(room)
    except zstandard.ZstdError as error:
        raise BatchCorrupt(f"its records do not decompress within {max_bytes} bytes: {error}") from error
    if byte_count > max_bytes:
        raise BatchCorrupt(f"its records do not decompress within {max_bytes} bytes")
    return bytes(room[:byte_count])


def _most_content_bytes(frames: memoryview, max_bytes: int) -> int:
    """The most that the blocks of these zstd frames can hold (RFC 8878 §3.1.1); BatchCorrupt unless they end with one.

    Reading frames as a stream would not say that the end of the last one is missing.
    """
    at = most = announced_bytes = 0
    while at < len(frames) or not at:
        frame = frames[at:]
        if frame[: len(_MAGIC)] != _MAGIC:
            raise BatchCorrupt(f"{len(frame)} bytes of its records do not decompress: they are no zstd frame")
        announced_bytes += max(zstandard.frame_content_size(frame), 0)  # −1: unknown
        if announced_bytes > max_bytes:
            raise BatchCorrupt(f"{announced_bytes} bytes of records after decompression, {max_bytes} are allowed")
        end, frame_bytes = _frame(frame)
        at, most = at + end, most + frame_bytes
    return most


def _frame(frame: memoryview) -> tuple[int, int]:
    """Where the first frame ends, and the most that its blocks can hold."""
    at, blocks, is_last = zstandard.frame_header_size(frame), 0, False
    while not is_last:
        block = int.from_bytes(frame[at : at + _BLOCK_HEADER_BYTES], "little")
        is_last, is_run, size = bool(block & 1), block >> 1 & 3 == _RUN_OF_ONE_BYTE, block >> 3
        at += _BLOCK_HEADER_BYTES + (1 if is_run else size)
        blocks += 1
        if at > len(frame):
            raise BatchCorrupt("its records end in the middle of a zstd block")
    if zstandard.get_frame_parameters(frame).has_checksum:
        at += _CHECKSUM_BYTES
    if at > len(frame):
        raise BatchCorrupt("its records end in the middle of a zstd frame")
    return at, blocks * _MAX_BLOCK_BYTES
