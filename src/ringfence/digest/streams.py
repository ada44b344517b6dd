"""Moving bytes from a stream into a function that takes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 256 * 1024
"""Bytes read at once: larger ones fall out of the second-level cache."""


class Source(Protocol):
    """A binary stream; `readinto` is used when it has it."""

    def read(self, size: int = ..., /) -> bytes | None:
        """Up to `size` bytes; none at the end."""


class AsyncReader(Protocol):
    """asyncio.StreamReader and its like."""

    def read(self, size: int = ..., /) -> Awaitable[bytes]:
        """Up to `size` bytes; none at the end."""


AsyncSource = AsyncReader | AsyncIterable[bytes]


def pour(reader: Source, sink: Callable[[memoryview | bytes], Any], limit: int = -1) -> int:
    """Read to the end, or `limit` bytes when it is not negative, into `sink`; how many came."""
    into = getattr(reader, "readinto", None)
    return _read(reader, sink, limit) if into is None else _readinto(into, sink, limit)


def _readinto(
    into: Callable[[memoryview], int | None], sink: Callable[..., Any], limit: int
) -> int:
    view = memoryview(bytearray(CHUNK))
    total = 0
    while limit < 0 or total < limit:
        count = into(view if limit < 0 else view[: limit - total])
        if count is None:
            raise BlockingIOError("the stream is not blocking and has nothing now")
        if count == 0:
            break
        sink(view[:count])
        total += count
    return total


def _read(reader: Source, sink: Callable[..., Any], limit: int) -> int:
    total = 0
    while limit < 0 or total < limit:
        data = reader.read(CHUNK if limit < 0 else min(CHUNK, limit - total))
        if data is None:
            raise BlockingIOError("the stream is not blocking and has nothing now")
        if not data:
            break
        sink(data)
        total += len(data)
    return total


async def apour(reader: AsyncSource, sink: Callable[[bytes], Any]) -> int:
    """The same for asynchronous streams, to their end."""
    total = 0
    if isinstance(reader, AsyncIterable) and not hasattr(reader, "read"):
        async for data in reader:
            sink(data)
            total += len(data)
        return total
    while data := await reader.read(CHUNK):  # type: ignore[union-attr,unused-ignore]
        sink(data)
        total += len(data)
    return total


def size_of(data: Buffer) -> int:
    """The bytes of a buffer, whatever its items are."""
    return len(data) if isinstance(data, (bytes, bytearray)) else memoryview(data).nbytes
