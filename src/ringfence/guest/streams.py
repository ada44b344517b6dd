"""The flow-controlled byte streams of one operation, seen from the host.

Output comes from the guest, at most a window of it beyond what was acknowledged. Input goes to
the guest, likewise.
"""

import asyncio
from collections.abc import Callable

from ringfence.guest.payload import malformed
from ringfence.guest.pieces import CHUNK_BYTES, Pieces
from ringfence.guest.protocol import INPUT_WINDOW, OUTPUT_WINDOW, STDOUT, U64

ACK_BYTES = OUTPUT_WINDOW // 4
FILE_CHUNK_BYTES = 256 * 1024
LAST_OFFSET = 2**63 - 1
"""No output comes that far."""


class _Awaited:
    """A stream that somebody may wait for. `_waiter` begins as None: the streams set it themselves,
    as there are three of them in every exec."""

    __slots__ = ("_waiter",)

    _waiter: "asyncio.Future[None] | None"

    async def wait(self) -> None:
        """Until something came, or went, or the operation ended."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            waiter = self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.shield(waiter)

    def wake(self) -> None:
        """Something came, or went, or the operation ended."""
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


class Output(_Awaited):
    """Bytes from the guest, in order, kept until they are taken.

    cap: bytes that may come in all, None for any. collect: everything is kept until the end and
    acknowledged as it comes (the cap bounds it); else at most a window is kept, and what was taken
    is acknowledged. start: offset of the first byte. jumps: whether offsets may leave a gap (the
    oldest bytes of a held exec are dropped while nobody reads) and begin before `start` (where
    there is less).
    """

    __slots__ = (
        "_acked",
        "_cap",
        "_collects",
        "_drops",
        "_jumps",
        "_open",
        "_start",
        "data",
        "end",
    )

    def __init__(
        self, cap: int | None, *, collect: bool, start: int = 0, jumps: bool = False
    ) -> None:
        self._waiter = None
        self.data = Pieces()
        self.end = start
        self._start = start
        self._acked = start
        self._cap = cap
        self._collects = collect
        self._open = collect
        self._drops = False
        self._jumps = jumps

    def add(self, offset: int, chunk: memoryview) -> bool:
        """Take what came; True when it is time to acknowledge. GuestError when it may not come."""
        if offset != self.end:
            self._jump(offset)
        self.end = end = offset + len(chunk)
        if end - self._acked > OUTPUT_WINDOW:
            raise malformed("more output than its window allows")
        if self._cap is not None and end > self._cap:
            raise malformed("more output than its cap allows")
        full = not self._collects and len(self.data) + len(chunk) > OUTPUT_WINDOW
        if not (self._drops or full):
            self.data.add(chunk)
        if self._waiter is not None:
            self.wake()
        return self._open and end - self._acked >= ACK_BYTES

    def _jump(self, offset: int) -> None:
        if not self._jumps or (offset < self.end and self.end != self._start):
            raise malformed("output out of order")
        if offset > LAST_OFFSET:
            raise malformed("output beyond all counting")
        self._acked += offset - self.end

    def may_end_at(self, total: int) -> bool:
        """Whether `total` bytes in all agree with what came."""
        return total >= self.end or (self._jumps and self.end == self._start)

    def take(self, size: int) -> bytes:
        """1 to `size` bytes, removed; there must be some."""
        return self.data.take(size)

    @property
    def consumed(self) -> int:
        """Bytes that the guest need not count against the window any more."""
        return self.end if self._open else self.end - len(self.data)

    @property
    def wants_ack(self) -> bool:
        """Whether enough was consumed for an acknowledgement."""
        return self.consumed - self._acked >= ACK_BYTES

    def ack(self, stream: int) -> bytes:
        """The payload of an ACK of all that was consumed."""
        self._acked = self.consumed
        return bytes((stream,)) + U64.pack(self._acked)

    def open_wide(self) -> None:
        """From now on the guest waits for no reader: what finds no room here is dropped."""
        self._open = True

    def discard(self) -> None:
        """Drop what is kept and all that still comes."""
        self._open = self._drops = True
        self.data.clear()


class Inflow:
    """Bytes from the guest in the pieces that they came in, at most a window of them at a time."""

    __slots__ = ("_acked", "_pieces", "_window", "end")

    def __init__(self, window: int = OUTPUT_WINDOW) -> None:
        self._pieces = Pieces()
        self._window = window
        self._acked = 0
        self.end = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, chunk: memoryview) -> None:
        """Take what came. GuestError when it is more than the window allows."""
        self.end += len(chunk)
        if self.end - self._acked > self._window:
            raise malformed("more data than its window allows")
        self._pieces.add(chunk)

    def take(self, size: int) -> bytes:
        """1 to `size` bytes, removed; there must be some."""
        return self._pieces.take(size)

    def clear(self) -> None:
        """Drop what is there."""
        self._pieces.clear()

    @property
    def _consumed(self) -> int:
        return self.end - len(self._pieces)

    @property
    def wants_ack(self) -> bool:
        """Whether enough was consumed for an acknowledgement."""
        return self._consumed - self._acked >= self._window // 4

    def ack(self) -> bytes:
        """The payload of an ACK of all that was consumed."""
        self._acked = self._consumed
        return bytes((STDOUT,)) + U64.pack(self._acked)


class Input(_Awaited):
    """Bytes to the guest, at most a window beyond what it acknowledged.

    send: writes one frame's payload, of at most `chunk` bytes; an empty one is the end.
    sent, acked: where it goes on, when an earlier session sent some.
    """

    __slots__ = (
        "_acked",
        "_chunk",
        "_closed",
        "_rest",
        "_send",
        "_sent",
        "_window",
        "ended",
    )

    def __init__(
        self,
        send: Callable[[bytes | memoryview], None],
        window: int = INPUT_WINDOW,
        chunk: int = CHUNK_BYTES,
        *,
        sent: int = 0,
        acked: int = 0,
    ) -> None:
        self._waiter = None
        self._send = send
        self._window = window
        self._chunk = chunk
        self._sent = sent
        self._acked = acked
        self._rest: memoryview | None = None
        self._closed = False
        self.ended = False

    def acked(self, total: int) -> None:
        """The guest has consumed `total` bytes. GuestError when that cannot be."""
        if not self._acked <= total <= self._sent:
            raise malformed("input acknowledged that was not sent")
        self._acked = total
        if self._rest is not None:
            self._pump()
        self.wake()

    def feed(self, data: bytes) -> None:
        """Send all of `data` and the end, as fast as the guest takes it; returns at once."""
        self._rest = memoryview(data)
        self._pump()

    def _pump(self) -> None:
        rest = self._rest
        while rest is not None and (room := self.room()):
            chunk = rest[: min(room, self._chunk)]
            rest = rest[len(chunk) :]
            if chunk:
                self._put(chunk)
            if not rest:
                rest = None
                self._send(b"")
        self._rest = rest

    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._window - (self._sent - self._acked)

    def _put(self, chunk: bytes | memoryview) -> None:
        self._sent += len(chunk)
        self._send(chunk)

    @property
    def total(self) -> int:
        """Bytes that were sent."""
        return self._sent

    @property
    def idle(self) -> bool:
        """Whether the guest has consumed all that was sent."""
        return self._sent == self._acked

    async def write(self, data: bytes | bytearray | memoryview) -> bool:
        """Send all of `data`, waiting for the guest; False when the operation ended first.

        Cancellation leaves a part of it sent.
        """
        rest = memoryview(data).cast("B")
        while rest:
            if self.ended or self._closed:
                return False
            room = min(self.room(), self._chunk)
            if not room:
                await self.wait()
                continue
            chunk = rest[:room]
            self._put(chunk if isinstance(data, bytes) else bytes(chunk))
            rest = rest[room:]
        return True

    def close(self) -> None:
        """Send the end, once."""
        if not self._closed and not self.ended:
            self._closed = True
            self._send(b"")

    def end(self) -> None:
        """The operation ended: nothing is sent any more."""
        self.ended = True
        self._rest = None
        self.wake()
