"""Files that are written from data that come bit by bit."""

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from ringfence.errors import SandboxError
from ringfence.guest.given import content
from ringfence.guest.operation import ANSWER_SECONDS
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import FILE_WINDOW, U64, Answer, Ask
from ringfence.guest.streams import FILE_CHUNK_BYTES, Input
from ringfence.guest.transfers import Transfer

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection


class Writer(Transfer):
    """WRITE of a file whose data follows in FILE_DATA frames."""

    __slots__ = ("_whole", "future", "input")

    def __init__(self, connection: "Connection", path: bytes) -> None:
        super().__init__(connection, "files.write", path)
        self._whole = False
        self.input = Input(
            lambda chunk: connection.send(Ask.FILE_DATA, self.id, chunk),
            FILE_WINDOW,
            FILE_CHUNK_BYTES,
        )
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def _receive_part(self, op: int, payload: memoryview) -> None:
        if op != Answer.STDIN_ACK:
            raise malformed(f"frame 0x{op:02x} in a WRITE")
        self.input.acked(U64.unpack(payload)[0])

    def _receive_done(self, fields: Payload) -> None:
        written = fields.u64()
        if not self.future.done():
            self.future.set_result(written)

    def _waits_for_host(self) -> bool:
        return self.input.idle and not self._whole

    def _finish(self, error: SandboxError | None) -> None:
        super()._finish(error)
        if self.error is not None and not self.future.done():
            self.future.set_exception(self.error)
            self.future.exception()  # nobody waits where the source failed as well
        self.input.end()

    def _cancel(self) -> None:
        self._connection.send(Ask.FILE_END, self.id, b"\1")

    async def pour(self, data: bytes | bytearray | memoryview | AsyncIterable[bytes]) -> None:
        """Send all of `data` and their end, as fast as the guest takes them."""
        if not isinstance(data, AsyncIterable):
            await self.input.write(data)
        else:
            async for chunk in data:
                if not await self.input.write(content(chunk, "data")):
                    break
        if not self.over:
            self._end()

    def _end(self) -> None:
        self._whole = True
        self.deadline = self._connection.clock() + ANSWER_SECONDS
        self._connection.send(Ask.FILE_END, self.id, b"\0")
