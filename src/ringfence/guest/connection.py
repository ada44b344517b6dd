"""The stream of one session: its operations and their ids, keep-alive, and its end."""

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from ringfence.errors import (
    SandboxError,
    SandboxLostError,
    StateError,
    UnsupportedError,
)
from ringfence.guest.operation import Operation, lost
from ringfence.guest.outgoing import WAITING_BYTES, Outgoing
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import (
    GUEST_IDS,
    HELLO_TAIL,
    MARKER_BYTES,
    VERSION,
    Answer,
    Ask,
    check_size,
)

TICKS = 3
"""Intervals of keep-alive in one lease."""
_SOCKET_BYTES = 4 * 1024 * 1024
_LAST_ID = GUEST_IDS - 1
_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Hello:
    """What the guest says of itself. features: bits of `protocol.Feature`; epoch: sessions it had
    so far; boot_ms: milliseconds since it started."""

    version: int
    features: int
    reserved_uid: int
    epoch: int
    boot_ms: int
    build: str


class Connection(Outgoing):
    """Everything below the operations. The guest's bytes are hostile: what makes no sense ends it.

    `lost` is resolved, never failed, with the error that ended the session.
    """

    def __init__(self, lease: float) -> None:
        super().__init__()
        self.lost: asyncio.Future[SandboxError] = self._loop.create_future()
        self.greeted: asyncio.Future[Hello] = self._loop.create_future()
        self._disconnected: asyncio.Future[None] = self._loop.create_future()
        self._first_id = self._next_id = 1
        self._wrapped = False
        self._foreign: set[int] = set()
        self.on_accept: Callable[[int, memoryview], None] | None = None
        self._kept: set[asyncio.Future[None]] = set()
        self._interval = lease / TICKS
        self._tick: asyncio.TimerHandle | None = None
        self._silent = 0
        self._waiting = 0
        self._paused_at: float | None = None
        self._paused_seconds = 0.0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport, once."""
        # uvloop's is no asyncio.Transport, but has its methods.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WAITING_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            if transport.get_protocol() is self:  # else something lies between
                self._descriptor = sock.fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport, last."""
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        why = f"its stream ended ({exc})" if exc else "its stream ended"
        self.lose(
            SandboxLostError(
                f"{why}: it was deleted, it expired, its guest died, or this program's event loop"
                " stood still for longer than the sandbox's lease"
            )
        )

    def _stray(self, op: int, operation_id: int, payload: memoryview) -> None:
        if operation_id == 0:
            if op == Answer.HELLO and not self.greeted.done():
                self._greet(Payload(payload))
            elif op != Answer.PONG:
                raise malformed(f"frame 0x{op:02x} for the session itself")
        elif not self.greeted.done():
            raise malformed("a frame before its HELLO")
        elif operation_id >= GUEST_IDS:
            if op == Answer.ACCEPT and self.on_accept is not None:
                self.on_accept(operation_id, payload)
        elif not (
            self._wrapped
            or self._first_id <= operation_id < self._next_id
            or operation_id in self._foreign
        ):
            raise malformed(f"a frame for operation {operation_id}, which never was")

    def _greet(self, fields: Payload) -> None:
        fields.raw(MARKER_BYTES)
        version, features, reserved_uid, epoch, boot_ms = fields.take(HELLO_TAIL)
        if version != VERSION:
            self.lose(
                UnsupportedError(
                    f"the guest speaks protocol version {version}, this Ringfence {VERSION}: open "
                    "the sandbox with the Ringfence that created it",
                    op="open",
                )
            )
            return
        build = fields.text()[:256]
        fields.end()
        # Ids of earlier sessions may still name held execs: each session counts from its own base.
        self._first_id = self._next_id = ((epoch & 0x7FF) << 20) + 1
        self.greeted.set_result(Hello(version, features, reserved_uid, epoch, boot_ms, build))

    # The operations' side.

    def clock(self) -> float:
        """Seconds, not counting the time while the session was suspended."""
        now = self._loop.time() if self._paused_at is None else self._paused_at
        return now - self._paused_seconds

    def register(self, operation: Operation, seconds: float = math.inf) -> int:
        """Give `operation` an id; it expires in `seconds`. StateError, SandboxLostError."""
        if self._ended is not None:
            self._refuse(self._ended)
        operations = self._operations
        operation_id = self._next_id
        while operation_id in operations or operation_id in self._foreign:
            operation_id += 1
        if operation_id > _LAST_ID:
            self._wrapped, self._next_id = True, 1
            return self.register(operation, seconds)
        self._next_id = operation_id + 1
        self._add(operation, operation_id, seconds)
        return operation_id

    def issue(
        self, operation: Operation, op: int, payload: bytes, seconds: float = math.inf
    ) -> int:
        """`register` an operation and `send` the frame that begins it; its id. InvalidSpecError for
        a frame too long, before either."""
        check_size(len(payload))
        operation_id = self.register(operation, seconds)
        self.send(op, operation_id, payload)
        return operation_id

    def adopt(self, operation: Operation, operation_id: int, seconds: float = math.inf) -> None:
        """Register `operation` under an id that an earlier operation or session chose.

        Raises StateError when an operation of this session is using it.
        """
        if self._ended is not None:
            self._refuse(self._ended)
        if operation_id in self._operations:
            raise StateError(f"exec {operation_id} is in use here: end that first", op="session")
        if operation_id < GUEST_IDS:
            self._foreign.add(operation_id)
        self._add(operation, operation_id, seconds)

    def _add(self, operation: Operation, operation_id: int, seconds: float) -> None:
        operation.id = operation_id
        if seconds != math.inf:
            operation.deadline = self.clock() + seconds
        self._operations[operation_id] = operation

    def operations(self) -> tuple[Operation, ...]:
        """Those under way."""
        return tuple(self._operations.values())

    def drop(self, operation: Operation) -> None:
        """Forget `operation`; what the guest still sends for it is ignored."""
        if self._operations.get(operation.id) is operation:
            del self._operations[operation.id]
            operation.dropped()

    def keep(self, task: "asyncio.Future[None]") -> None:
        """Hold on to a task that nobody waits for until it ends; it ends with the session."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def _refuse(self, reason: SandboxError) -> None:
        if isinstance(reason, StateError):
            raise StateError(reason.message, op="session")
        raise lost(reason, "session")

    # Keep-alive and the end.

    def keep_alive(self) -> None:
        """Ping from now on; a whole lease without a sign of the guest ends the session."""
        if self._tick is None and self._ended is None:
            self._tick = self._loop.call_later(self._interval, self._on_tick)

    def suspend(self) -> None:
        """Stop pings and deadlines, for a guest that is about to be frozen. Idempotent."""
        if self._paused_at is None:
            self._paused_at = self._loop.time()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def resume(self) -> None:
        """Go on after `suspend`: the guest has been thawed. Idempotent."""
        if self._paused_at is not None:
            self._paused_seconds += self._loop.time() - self._paused_at
            self._paused_at = None
            self._silent = 0
            self.send(Ask.PING, 0)
            self.keep_alive()

    def _on_tick(self) -> None:
        self._tick = None
        before, self._waiting = self._waiting, self._bytes_waiting()
        takes = self._waiting < before  # what it says is not read where much waits
        self._silent = 0 if self._heard or takes else self._silent + 1
        if self._silent > TICKS:
            self.lose(SandboxLostError("its guest gave no sign of life for a whole lease"))
            return
        # The next tick is an interval away, or more where the event loop is busy.
        if not self._heard or self._loop.time() - self._spoke_at > self._interval / 2:
            self.send(Ask.PING, 0)
        self._heard = False
        self._expire()
        self.keep_alive()

    def _expire(self) -> None:
        now = self.clock()
        for operation in list(self._operations.values()):
            if now < operation.deadline:
                operation.overdue = False
            elif not operation.overdue:
                # One tick more: its answer may be waiting in the socket of a busy event loop.
                operation.overdue = True
            else:
                self._expire_one(operation, now)

    def _expire_one(self, operation: Operation, now: float) -> None:
        reason = operation.expire(now)
        if reason is not None:
            self.lose(reason)
        elif operation.deadline <= now:
            self.drop(operation)

    def lose(self, error: SandboxError) -> None:
        """End the session because of `error`: every operation ends, the stream closes at once."""
        if self._ended is None:
            self._end(error)
            if self._transport is not None:
                self._transport.abort()

    def _end(self, error: SandboxError) -> None:
        self._ended = error
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        operations, self._operations = self._operations, {}
        for operation in operations.values():
            operation.lose(error)
        self._forget_room()
        if not self.greeted.done():
            self.greeted.cancel()
        for task in self._kept:
            task.cancel()
        self.lost.set_result(error)

    async def disconnect(self) -> None:
        """Flush, close the stream and end every operation; the guest is not told. Idempotent."""
        if self._ended is None:
            self._end(StateError("the session was closed", op="session"))
            if self._transport is not None:
                self._transport.close()
        if self._transport is not None:
            await asyncio.wait([self._disconnected], timeout=_CLOSE_SECONDS)
            self._transport.abort()
