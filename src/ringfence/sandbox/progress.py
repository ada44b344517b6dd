"""Telling a caller how far a long transfer is."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.workspace.stopping import Count

Progress = Callable[[int, int | None], None]
"""Called with the bytes moved so far and those there are in all (None: not known)."""

_PIECE = 256 * 1024
_EVERY_SECONDS = 0.2


@asynccontextmanager
async def counting(progress: Callable[[int], None] | None) -> "AsyncIterator[Count]":
    """What another thread tells a number of entries within the block; `progress` hears the last one
    on this event loop, a few times a second and at the end. What it raises is raised at the end."""
    if progress is None:
        from ringfence.workspace.stopping import nobody

        yield nobody
        return
    counter = _Counter(progress)
    task = asyncio.create_task(counter.run())
    try:
        yield counter.count
    finally:
        failure = None if task.cancel() or task.cancelled() else task.exception()
    if failure is not None:
        raise failure
    counter.tell()


class _Counter:
    def __init__(self, progress: Callable[[int], None]) -> None:
        self._progress = progress
        self._counted = self._told = 0

    def count(self, entries: int) -> None:
        self._counted = entries

    def tell(self) -> None:
        if self._counted != self._told:
            self._told = self._counted
            self._progress(self._told)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self.tell()


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
