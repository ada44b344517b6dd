"""Telling a caller how far a long transfer is."""

from collections.abc import AsyncIterable, AsyncIterator, Callable

Progress = Callable[[int, int | None], None]
"""Called with the bytes moved so far and those there are in all (None: not known)."""

_PIECE = 256 * 1024


async def counted(
    data: bytes | bytearray | memoryview | AsyncIterable[bytes],
    progress: Progress,
    total: int | None = None,
) -> AsyncIterator[bytes]:
    """`data` in pieces, with a call of `progress` after each has been taken, and one at the end."""
    done = 0
    if isinstance(data, AsyncIterable):
        async for chunk in data:
            yield chunk
            done += len(chunk)
            progress(done, total)
    else:
        view = memoryview(data).cast("B")
        total = len(view)
        for start in range(0, total, _PIECE):
            yield bytes(view[start : start + _PIECE])
            done = min(start + _PIECE, total)
            progress(done, total)
    if not done:
        progress(0, total)
