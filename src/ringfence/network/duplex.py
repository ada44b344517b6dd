"""A byte stream in both directions, and how two of them are joined."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

CHUNK_BYTES = 256 * 1024
_NOT_AT_ALL = struct.pack("ii", 1, 0)
"""How long a closed socket lingers: what waits is dropped, and the other end gets a reset."""


class Duplex(Protocol):
    """One end of a connection; a guest stream and a socket both look like this."""

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most `size` bytes, b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Send, now or later."""
        ...

    async def drain(self) -> None:
        """Until little enough waits."""
        ...

    def write_eof(self) -> None:
        """End our direction."""
        ...

    def close(self) -> None:
        """Send what waits, then end both."""
        ...

    def reset(self) -> None:
        """Break it off."""
        ...


class SocketDuplex:
    """A TCP connection of the host."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most `size` bytes, b"" at the end."""
        return await self._reader.read(size)

    def write(self, data: bytes) -> None:
        """Send, now or later."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Until little enough waits."""
        await self._writer.drain()

    def write_eof(self) -> None:
        """End our direction."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    def close(self) -> None:
        """Send what waits, then end both."""
        self._writer.close()

    def reset(self) -> None:
        """Break it off: the other end hears that, too, and does not take it for an end."""
        connection = self._writer.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:  # uvloop has none where it is gone
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
        self._writer.transport.abort()


class Buffered:
    """A duplex of which the first bytes were looked at: they can be read again."""

    def __init__(self, inner: Duplex) -> None:
        self.inner = inner
        self._ahead = bytearray()

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        """What was looked at first, then the rest."""
        if self._ahead:
            chunk = bytes(self._ahead[:size])
            del self._ahead[:size]
            return chunk
        return await self.inner.read(size)

    async def exactly(self, size: int) -> bytes:
        """`size` bytes; EOFError when the stream ends before."""
        while len(self._ahead) < size:
            await self.more()
        chunk = bytes(self._ahead[:size])
        del self._ahead[:size]
        return chunk

    async def until(self, end: bytes, most: int) -> bytes:
        """Up to and with `end`. EOFError; ValueError when it does not come within `most` bytes."""
        while (at := self._ahead.find(end)) < 0:
            if len(self._ahead) > most:
                raise ValueError(f"no end within {most} bytes")
            await self.more()
        chunk = bytes(self._ahead[: at + len(end)])
        del self._ahead[: at + len(end)]
        if len(chunk) > most:
            raise ValueError(f"no end within {most} bytes")
        return chunk

    async def peek(self, size: int) -> bytes:
        """The next `size` bytes, left in place; fewer at the end."""
        with contextlib.suppress(EOFError):
            while len(self._ahead) < size:
                await self.more()
        return bytes(self._ahead[:size])

    async def more(self) -> None:
        """Take one more piece in. EOFError at the end."""
        chunk = await self.inner.read()
        if not chunk:
            raise EOFError
        self._ahead += chunk


Count = Callable[[int], None]


async def pump(source: Duplex | Buffered, target: Duplex, count: Count) -> None:
    """Copy one direction to its end, then end it at the other side, too."""
    while chunk := await source.read(CHUNK_BYTES):
        target.write(chunk)
        count(len(chunk))
        await target.drain()
    target.write_eof()


async def join(
    inside: Buffered,
    outside: Duplex,
    sent: Count,
    received: Count,
    first: Coroutine[Any, Any, None] | None = None,
) -> None:
    """Copy both directions until both ended. When one breaks, both sides are broken off: its error.

    first: what is done before anything goes out; when it raises, nothing does.
    """

    async def send() -> None:
        if first is not None:
            await first
        await pump(inside, outside, sent)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            group.create_task(pump(outside, inside.inner, received))
    except BaseException as broken:
        inside.inner.reset()
        outside.reset()
        if isinstance(broken, ExceptionGroup):
            raise broken.exceptions[0] from None
        raise
