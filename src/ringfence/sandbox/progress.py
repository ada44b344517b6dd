"""Telling a caller how far a long transfer is."""

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress

from ringfence.workspace.stopping import nobody

Progress = Callable[[int, int | None], None]
"""Called with the bytes moved so far and those there are in all (None: not known)."""

_PIECE = 256 * 1024
_EVERY_SECONDS = 0.2


def counted_entries(progress: Callable[[int], None] | None) -> Callable[[int], None]:
    """For another thread: has `progress` called on this event loop, a few times a second."""
    if progress is None:
        return nobody
    loop = asyncio.get_running_loop()
    told = -math.inf

    def count(entries: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _EVERY_SECONDS:
            told = now
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(progress, entries)

    return count


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
