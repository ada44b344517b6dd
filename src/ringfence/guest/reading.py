"""Files that are read: whole, into memory prepared for them, or as streams."""

import asyncio
import math
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Self

from ringfence.errors import SandboxError
from ringfence.guest.failures import too_large
from ringfence.guest.given import whole_number
from ringfence.guest.operation import ANSWER_SECONDS
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.pieces import CHUNK_BYTES
from ringfence.guest.protocol import NO_CAP, OUTPUT_WINDOW, STDOUT, U64, Answer, Ask, Stat
from ringfence.guest.streams import ACK_BYTES, Inflow
from ringfence.guest.transfers import Transfer

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

_PREPARED_BYTES = 1024 * 1024 * 1024
"""What is prepared at most on the guest's word."""
_LARGE_PAGES_BYTES = 8 * 1024 * 1024
"""From here up what large pages may take too much of does not matter."""


class Whole(Transfer):
    """READ of a file into memory, at most `limit` bytes of it (FileTooLargeError above).

    A long file's bytes go from the socket to where they stay: SIZE says how much may come, and
    the guest's word is worth no more than a room that is taken as it is filled.
    """

    __slots__ = ("_acked", "_data", "_end", "_limit", "_offset", "_view", "future")

    def __init__(
        self, connection: "Connection", path: bytes, offset: int, limit: int | None
    ) -> None:
        super().__init__(connection, "files.read", path)
        self._data = BytesIO()  # gives its bytes away without copying them
        self._view: memoryview | None = None
        self._end = self._acked = 0
        self._offset = offset
        self._limit = math.inf if limit is None else limit
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def _receive_part(self, op: int, payload: memoryview) -> None:
        if op == Answer.SIZE and self._view is None and not self._end:
            self._prepare(U64.unpack(payload)[0])
            return
        if op != Answer.DATA:
            raise malformed(f"frame 0x{op:02x} in a READ")
        offset = U64.unpack_from(payload)[0] - self._offset
        if offset + len(payload) - 8 > self._limit:
            self.cancel(too_large(self.name, self._path, int(self._limit)))
        else:
            self._add(offset, payload[8:])

    def _add(self, offset: int, chunk: memoryview) -> None:
        if offset != self._end:
            raise malformed("a READ out of order")
        if offset + len(chunk) - self._acked > OUTPUT_WINDOW:
            raise malformed("more of a READ than its window allows")
        if self._view is not None and offset + len(chunk) <= len(self._view):
            self._view[offset : offset + len(chunk)] = chunk
        else:
            self._write(chunk)
        self.filled(len(chunk))

    def _write(self, chunk: memoryview) -> None:
        """There is more of the file than was said."""
        self._release()
        self._data.seek(self._end)
        self._data.write(chunk)

    def _release(self) -> None:
        if self._view is not None:
            self._view.release()
            self._view = None
            self._connection.long_reads -= 1

    def _prepare(self, size: int) -> None:
        """Make room for what is said to come; the memory is taken when it comes."""
        with suppress(MemoryError):
            # Zeros that nobody has touched take no memory, and only the stream holds them.
            self._data = BytesIO(bytes(int(min(size, self._limit, _PREPARED_BYTES))))
            self._view = self._data.getbuffer()
            self._connection.long_reads += 1
            if len(self._view) >= _LARGE_PAGES_BYTES:
                _in_large_pages(self._view)

    def room(self, op: int, payload: memoryview, size: int) -> memoryview | None:
        """Where a DATA frame goes when all is well with it."""
        at = self._end
        view = self._view
        if (
            view is None
            or op != Answer.DATA
            or U64.unpack(payload)[0] - self._offset != at
            or at + size > len(view)
            or at + size - self._acked > OUTPUT_WINDOW
        ):
            return None
        wanted = view[at : at + size]
        _populate(wanted)
        return wanted

    def filled(self, size: int) -> None:
        """That many more are there."""
        if self.over:
            return
        self.deadline = self._connection.clock() + ANSWER_SECONDS
        self._end += size
        if self._end - self._acked >= ACK_BYTES:
            self._acked = self._end
            self._connection.send(Ask.ACK, self.id, bytes((STDOUT,)) + U64.pack(self._end))

    def _receive_done(self, fields: Payload) -> None:
        fields.u64()
        fields.stat()

    def _finish(self, error: SandboxError | None) -> None:
        super()._finish(error)
        self._release()
        if not self.future.done():
            if self.error is None:
                self._data.truncate(self._end)  # it became shorter meanwhile
                self.future.set_result(self._data.getvalue())
            else:
                self.future.set_exception(self.error)


class Reader(Transfer):
    """READ of a file as a stream: an async iterator of bytes that holds at most a window.

    Leave it with `aclose()` or `async with` when not reading to the end. `stat` is the file's,
    after the end.
    """

    __slots__ = ("_answered", "_flow", "_offset", "_waiter", "stat")

    def __init__(self, connection: "Connection", path: bytes, offset: int) -> None:
        super().__init__(connection, "files.read", path)
        self._answered = False
        self._flow = Inflow()
        self._offset = offset
        self._waiter: asyncio.Future[None] | None = None
        self.stat: Stat | None = None

    def _receive_part(self, op: int, payload: memoryview) -> None:
        self._answered = True
        if op == Answer.SIZE:
            self._wake()
            return
        if op != Answer.DATA:
            raise malformed(f"frame 0x{op:02x} in a READ")
        out_of_order = U64.unpack_from(payload)[0] - self._offset != self._flow.end
        if out_of_order or len(payload) == U64.size:
            raise malformed("a READ out of order")
        self._flow.add(payload[8:])
        self._wake()

    def _receive_done(self, fields: Payload) -> None:
        if fields.u64() < self._flow.end:
            raise malformed("a READ of less than was sent")
        self.stat = fields.stat()

    def _waits_for_host(self) -> bool:
        return bool(self._flow)

    def _finish(self, error: SandboxError | None) -> None:
        super()._finish(error)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def begun(self) -> None:
        """Once the guest opened the file. FileError when it cannot be opened."""
        while not self._answered and not self.over:
            await self._woken()
        if self.error is not None and not self._answered:
            raise self.error

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def read(self, size: int = 4 * CHUNK_BYTES) -> bytes:
        """1 to `size` bytes; b"" at the end. FileError, also in the middle of a file.

        One reader at a time.
        """
        whole_number(size, "size", NO_CAP, 1)
        flow = self._flow
        while not flow:
            if self.over:
                if self.error is not None:
                    raise self.error
                return b""
            await self._woken()
        chunk = flow.take(size)
        if flow.wants_ack and not self.over:
            self._connection.send(Ask.ACK, self.id, flow.ack())
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """End the transfer. Idempotent."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


def _populate(view: memoryview) -> None:
    from ringfence.guest.memory import populate  # what it needs is slow to import

    populate(view)


def _in_large_pages(view: memoryview) -> None:
    from ringfence.guest.memory import in_large_pages  # as above

    in_large_pages(view)
