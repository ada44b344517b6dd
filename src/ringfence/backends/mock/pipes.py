"""The guest's ends of the flow-controlled streams."""

import asyncio
from collections.abc import Callable

from ringfence.guest.protocol import OUTPUT_WINDOW, U64

CHUNK_BYTES = 64 * 1024


class Sender:
    """Bytes on their way to the host, at most a window beyond what it acknowledged.

    send: writes the payload of one frame (an offset and bytes); None while no session is there.
    cap: bytes that are sent in all, None for any. keep: bytes kept after they were sent.
    """

    def __init__(
        self, send: Callable[[bytes], None] | None, *, cap: int | None = None, keep: int = 0
    ) -> None:
        self._send = send
        self._cap = cap
        self._keep = keep
        self._buffer = bytearray()
        self._base = self._sent = self._acked = 0
        self._room = asyncio.Event()
        self.total = 0

    @property
    def _end(self) -> int:
        return self._base + len(self._buffer)

    @property
    def over_cap(self) -> bool:
        """Whether more was written than may be sent."""
        return self._cap is not None and self.total > self._cap

    def put(self, data: bytes) -> None:
        """Take all of `data` and send what the window allows."""
        left = len(data) if self._cap is None else max(0, self._cap - self.total)
        self.total += len(data)
        self._buffer += data[:left]
        self._flush()

    async def write(self, data: bytes) -> None:
        """Like `put`, but wait like a process on a full pipe."""
        self.put(data)
        while self._send is not None and self._end - self._sent > CHUNK_BYTES:
            self._room.clear()
            await self._room.wait()

    async def drain(self) -> None:
        """Until all was sent."""
        while self._send is not None and self._sent < self._end:
            self._room.clear()
            await self._room.wait()

    def ack(self, total: int) -> None:
        """The host has consumed `total` bytes."""
        self._acked = max(self._acked, total)
        self._flush()

    def detach(self) -> None:
        """The session is gone."""
        self._send = None
        self._trim()
        self._room.set()

    def attach(self, send: Callable[[bytes], None], offset: int) -> None:
        """A new session wants what is kept from `offset` on."""
        self._send = send
        self._sent = self._acked = min(max(offset, self._base), self._end)
        self._flush()

    def _flush(self) -> None:
        while self._send is not None and self._sent < self._end:
            room = min(CHUNK_BYTES, self._acked + OUTPUT_WINDOW - self._sent)
            if room <= 0:
                break
            start = self._sent - self._base
            chunk = bytes(self._buffer[start : start + room])
            self._send(U64.pack(self._sent) + chunk)
            self._sent += len(chunk)
        self._trim()
        self._room.set()

    def _trim(self) -> None:
        seen = self._end if self._send is None else self._sent
        surplus = min(seen - self._base, len(self._buffer) - self._keep)
        if surplus > 0:
            del self._buffer[:surplus]
            self._base += surplus
            self._sent = max(self._sent, self._base)


class Receiver:
    """Bytes from the host, acknowledged as they are read.

    acknowledge: called with the total read, of what came in frames. received: bytes of these.
    """

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._read = 0
        self.ended = False
        self.received = 0

    @property
    def taken(self) -> int:
        """Bytes of `received` that were read."""
        return max(0, self._read)

    def preset(self, data: bytes) -> None:
        """What is already here; it is not acknowledged."""
        self._buffer += data
        self._read -= len(data)
        self._arrived.set()

    def attach(self, acknowledge: Callable[[int], None]) -> None:
        """A new session hears of what is read from now on."""
        self._acknowledge = acknowledge

    def put(self, data: bytes) -> None:
        """Take what came; after the end it goes nowhere."""
        self.received += len(data)
        if self.ended:
            self._count(len(data))
            return
        self._buffer += data
        self._arrived.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._arrived.set()

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > 0:
            self._acknowledge(self._read)

    async def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        while not self._buffer:
            if self.ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        chunk = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._count(len(chunk))
        return chunk
