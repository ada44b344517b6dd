"""Looking at directories for long: walking and watching, each under flow control."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, NamedTuple

from ringfence.errors import GuestError, SandboxError
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import STDOUT, Answer, Ask, Stat
from ringfence.guest.streams import Output
from ringfence.guest.transfers import Transfer

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

_EVENTS_KEPT = 4096
_EVENT_BYTES = 8192
_ENTRY_BYTES = 52
OVERFLOW: Final = 0x4000
"""IN_Q_OVERFLOW: events were lost."""


class Entry(NamedTuple):
    """A name in a directory, or a path below the directory that is walked, and its stat."""

    name: bytes
    stat: Stat


class Event(NamedTuple):
    """A change that was watched for. mask, cookie: as in inotify(7); path: as the guest says."""

    mask: int
    cookie: int
    path: bytes


def unpack_entries(fields: Payload) -> list[Entry]:
    """A count and that many entries."""
    string, stat = fields.string, fields.stat
    return [Entry(string(), stat()) for _ in range(fields.count(_ENTRY_BYTES))]


class Walk(Transfer):
    """WALK of a tree: an async iterator of lists of entries that holds at most a window."""

    __slots__ = ("_batches", "_flow")

    def __init__(self, connection: "Connection", path: bytes) -> None:
        super().__init__(connection, "files.walk", path)
        self._flow = Output(None, collect=False)
        self._batches: deque[int] = deque()

    def _receive_part(self, op: int, payload: memoryview) -> None:
        if op != Answer.ENTRIES or len(payload) < 4:
            raise malformed(f"frame 0x{op:02x} in a WALK")
        self._batches.append(len(payload))
        self._flow.add(self._flow.end, payload)

    def _receive_done(self, fields: Payload) -> None:
        fields.u64()

    def _waits_for_host(self) -> bool:
        return bool(self._batches)

    def _finish(self, error: SandboxError | None) -> None:
        super()._finish(error)
        self._flow.wake()

    def __aiter__(self) -> AsyncIterator[list[Entry]]:
        return self

    async def __anext__(self) -> list[Entry]:
        while not self._batches:
            if self.over:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            await self._flow.wait()
        fields = Payload(self._flow.take(self._batches.popleft()))
        try:
            entries = unpack_entries(fields)
            fields.end()
        except GuestError as error:
            self._connection.lose(error)
            raise
        if self._flow.wants_ack and not self.over:
            self._connection.send(Ask.ACK, self.id, self._flow.ack(STDOUT))
        return entries

    async def aclose(self) -> None:
        """End the walk. Idempotent."""
        self.cancel()


class Watch(Transfer):
    """WATCH: an async iterator of events, until `aclose`.

    At most 4096 events are kept; when more come, the rest is replaced by one of mask OVERFLOW.
    """

    __slots__ = ("_events", "_flow", "armed")

    def __init__(self, connection: "Connection", path: bytes) -> None:
        super().__init__(connection, "files.watch", path)
        self._events: deque[Event] = deque()
        self._flow = Output(None, collect=False)
        self.armed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _receive_part(self, op: int, payload: memoryview) -> None:
        if op != Answer.EVENT or len(payload) > _EVENT_BYTES:
            raise malformed(f"frame 0x{op:02x} in a WATCH")
        fields = Payload(payload)
        event = Event(fields.u32(), fields.u32(), fields.string())
        fields.end()
        if not self.armed.done():
            self.armed.set_result(None)
        if not event.mask:
            return
        if len(self._events) < _EVENTS_KEPT:
            self._events.append(event)
        else:
            self._events[-1] = Event(OVERFLOW, 0, b"")
        self._flow.wake()

    def _receive_done(self, fields: Payload) -> None:
        fields.rest()

    def _waits_for_host(self) -> bool:
        return self.armed.done()

    def _finish(self, error: SandboxError | None) -> None:
        super()._finish(error)
        if not self.armed.done():
            if self.error is None:
                self.armed.set_result(None)
            else:
                self.armed.set_exception(self.error)
        self._flow.wake()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.over:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            await self._flow.wait()
        return self._events.popleft()

    async def aclose(self) -> None:
        """End the watch. Idempotent."""
        self.cancel()
