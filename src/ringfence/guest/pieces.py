"""Bytes that came and wait to be taken."""

from collections import deque

CHUNK_BYTES = 64 * 1024
SMALL_BYTES = 4 * 1024


class Pieces:
    """Bytes in the pieces that they came in. Small ones are put together, so that what is kept
    takes about as much memory as it has bytes; large ones are copied once."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)

    def add(self, chunk: memoryview) -> None:
        """Keep a copy of `chunk`."""
        size = len(chunk)
        self._size += size
        last = self._pieces[-1] if self._pieces else None
        if size >= SMALL_BYTES:
            self._pieces.append(bytes(chunk))
        elif isinstance(last, bytearray) and len(last) < CHUNK_BYTES:
            last += chunk
        elif size:
            self._pieces.append(bytearray(chunk))

    def take(self, size: int) -> bytes:
        """1 to `size` bytes, removed; there must be some. What was added at once comes at once."""
        piece = self._pieces.popleft()
        if len(piece) > size:
            view = memoryview(piece)
            self._pieces.appendleft(view[size:])
            piece = view[:size]
        self._size -= len(piece)
        return bytes(piece)

    def clear(self) -> None:
        """Drop them all."""
        self._pieces.clear()
        self._size = 0
