"""One TCP connection of the sandbox, as a flow-controlled stream on the host."""

import asyncio
import contextlib
import errno
import math
import os
from collections import deque
from typing import TYPE_CHECKING, Self

from ringfence.errors import SandboxError
from ringfence.guest.operation import Operation, lost, overdue
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import FORWARD_WINDOW, U32, Answer, Ask
from ringfence.guest.streams import Inflow

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

READ_BYTES = 256 * 1024
_WAITING_BYTES = 256 * 1024
"""`drain` waits while more than this waits for its window."""
_LINGER_SECONDS = 60.0
"""How long the other side may take to end after `close`."""


class Stream(Operation):
    """One connection. `peer_port`: of the process inside, for one that a listener accepted.

    Life: open; each side ends its direction (`write_eof`, and `read` giving b""); when both have,
    it is over. `reset`, the other's reset and the session's end break it off: reads and writes
    then raise ConnectionResetError, or SandboxLostError.
    """

    __slots__ = (
        "_answered",
        "_arrived",
        "_closing",
        "_connection",
        "_eof_asked",
        "_eof_received",
        "_eof_sent",
        "_error",
        "_opened",
        "_outgoing",
        "_outgoing_bytes",
        "_over",
        "_sent",
        "_sent_acked",
        "_waiters",
        "peer_port",
    )

    def __init__(
        self, connection: "Connection", *, connects: bool = False, peer_port: int = 0
    ) -> None:
        super().__init__()
        self._connection = connection
        self.peer_port = peer_port
        self._answered = not connects
        self._opened: asyncio.Future[None] | None = None
        if connects:
            self._opened = asyncio.get_running_loop().create_future()
        self._arrived = Inflow(FORWARD_WINDOW)
        self._outgoing: deque[memoryview] = deque()
        self._outgoing_bytes = self._sent = self._sent_acked = 0
        self._closing = False
        self._eof_asked = self._eof_sent = self._eof_received = self._over = False
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # The guest's side.

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take one frame."""
        if op == Answer.RECEIVED:
            self._receive(payload)
        elif op == Answer.STDIN_ACK:
            total = Payload(payload).u64()
            if not self._sent_acked <= total <= self._sent:
                raise malformed("more acknowledged than was sent")
            self._sent_acked = total
            self._pump()
        elif op == Answer.CLOSED:
            number = U32.unpack(payload)[0]
            self._break(_broken(number) if number else None)
        elif op in (Answer.DONE, Answer.FAIL) and not self._answered:
            return self._receive_answer(op, Payload(payload))
        else:
            raise malformed(f"frame 0x{op:02x} for a connection")
        self._wake()
        return self._over

    def _receive_answer(self, op: int, fields: Payload) -> bool:
        self._answered = True
        if op == Answer.FAIL:
            number = fields.failure().errno
            self._break(OSError(number, f"connect inside: {os.strerror(number & 0xFFFF)}"))
            return True
        fields.end()
        self.deadline = math.inf
        if self._opened is not None and not self._opened.done():  # nobody may wait any more
            self._opened.set_result(None)
        return False

    def _receive(self, payload: memoryview) -> None:
        if self._eof_received or not self._answered:
            raise malformed("data outside of a connection's life")
        if not payload:
            self._eof_received = True
            return
        self._arrived.add(payload)
        if self._closing:
            self._drop_arrived()

    def lose(self, error: SandboxError) -> None:
        """The session ended."""
        self._break(lost(error, "forward"))

    def expire(self, now: float) -> SandboxError | None:  # noqa: ARG002 - the interface's
        """The guest did not answer CONNECT."""
        self._connection.send(Ask.RESET, self.id)
        self._break(overdue("connect"))
        return None

    def _break(self, error: Exception | None) -> None:
        self._over = True
        self._error = self._error or error
        self._outgoing.clear()
        self._outgoing_bytes = 0
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error or _broken(errno.ECONNRESET))
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def opened(self) -> None:
        """Until the connection exists; OSError when it was refused."""
        if self._opened is not None:
            await self._opened

    # The user's side.

    async def read(self, size: int = READ_BYTES) -> bytes:
        """1 to `size` bytes; b"" when no more follows. ConnectionResetError, SandboxLostError."""
        while not self._arrived:
            if self._error is not None:
                raise self._error
            if self._eof_received or self._over:
                return b""
            await self._wait()
        chunk = self._arrived.take(size)
        self._acknowledge()
        return chunk

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, now or when the window has room; follow it with `drain`.

        ConnectionResetError, SandboxLostError; BrokenPipeError after `write_eof`.
        """
        if self._eof_asked:
            raise BrokenPipeError(errno.EPIPE, "the writing side was ended")
        if self._over:
            raise self._error or _broken(errno.EPIPE)
        if data:
            self._outgoing.append(memoryview(data if isinstance(data, bytes) else bytes(data)))
            self._outgoing_bytes += len(self._outgoing[-1])
            self._pump()

    async def drain(self) -> None:
        """Until little enough waits for its window. ConnectionResetError, SandboxLostError."""
        while self._outgoing_bytes > _WAITING_BYTES and not self._over:
            await self._wait()
        if self._error is not None:
            raise self._error

    def write_eof(self) -> None:
        """End the writing side, behind all that was written. Idempotent."""
        if not self._eof_asked:
            self._eof_asked = True
            self._pump()

    def _room(self) -> int:
        return FORWARD_WINDOW - (self._sent - self._sent_acked)

    def _pump(self) -> None:
        while self._outgoing and (room := self._room()):
            chunk = self._outgoing.popleft()
            if len(chunk) > room:
                self._outgoing.appendleft(chunk[room:])
                chunk = chunk[:room]
            self._outgoing_bytes -= len(chunk)
            self._sent += len(chunk)
            self._connection.send(Ask.SEND, self.id, chunk)
        if self._eof_asked and not self._outgoing and not self._eof_sent and not self._over:
            self._eof_sent = True
            self._connection.send(Ask.SEND, self.id)

    def close(self) -> None:
        """Be done with it: what was written still goes out, what comes is dropped. Idempotent.

        When the other side has not ended after a minute, the connection is reset.
        """
        if not (self._over or self._closing):
            self._closing = True
            self._drop_arrived()
            self.write_eof()
            self._connection.keep(asyncio.ensure_future(self._linger()))

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.wait_closed()
        self.reset()

    async def wait_closed(self) -> None:
        """Until both sides have ended or the connection is broken off."""
        while not self._over:
            await self._wait()

    def _drop_arrived(self) -> None:
        self._arrived.clear()
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._arrived.wants_ack and not self._over:
            self._connection.send(Ask.ACK, self.id, self._arrived.ack())

    def reset(self) -> None:
        """Break it off at once. Idempotent."""
        if not self._over:
            self._connection.send(Ask.RESET, self.id)
            self._connection.drop(self)
            self._break(_broken(errno.ECONNABORTED))

    @property
    def over(self) -> bool:
        """Whether both sides have ended, or it was broken off."""
        return self._over

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _broken(number: int) -> ConnectionResetError:
    return ConnectionResetError(
        number, f"the connection inside was broken off: {os.strerror(number & 0xFFFF)}"
    )
