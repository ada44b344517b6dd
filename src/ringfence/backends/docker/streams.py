"""An attached container's stdin and stdout as the stream of a guest."""

import asyncio
import os
import struct
from collections.abc import Callable
from typing import cast

from ringfence.backends.docker import failures
from ringfence.backends.docker.engine import SECONDS, Engine, message_of
from ringfence.errors import SandboxError, SandboxLostError

_HEAD_CAP = 64 * 1024
_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_STREAM = b"application/vnd.docker."
"""What an Engine says of a stream that it gives without switching over."""


class Attached(asyncio.Protocol):
    """Reads the Engine's answer, then stdout out of its multiplexed frames, for an inner protocol.

    Life: the connection is made, `upgraded` is resolved with the answer's status and, when it is
    not 101, its body; then reading rests until `join` names the inner protocol. What is written to
    the transport goes to stdin as it is.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.upgraded: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.BaseProtocol | None = None
        self._head = bytearray()
        self._open = False
        self._partial = bytearray()
        self._left = 0
        self._wanted = False
        self._lost: tuple[Exception | None] | None = None
        self._held: int | None = None

    # The connection's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport, once."""
        # uvloop's is no asyncio.Transport, but has its methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the answer's head, later the frames."""
        if not self._open:
            self._head += data
            self._read_head()
        elif self._inner is None:
            self._head += data
        else:
            self._demultiplex(data)

    def eof_received(self) -> bool:
        """Nothing comes any more: close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport, last."""
        if not self.upgraded.done():
            self.upgraded.set_result((0, bytes(self._head)))
        self._lost = (exc,)
        self._let_go()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Stdin is full."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Stdin takes more."""
        if self._inner is not None:
            self._inner.resume_writing()

    # The user's side.

    def join(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        """Give the stream to `factory()`, which gets what was read so far."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - upgraded streams have one
        self._inner = factory()
        self._inner.connection_made(transport)
        if self._lost is not None:
            self._inner.connection_lost(self._lost[0])
            return transport
        if self._head:
            waiting, self._head = bytes(self._head), bytearray()
            self._demultiplex(waiting)
        transport.resume_reading()
        return transport

    def keep(self, held: int) -> None:
        """Close the descriptor `held` when the connection is gone."""
        self._held = held
        if self._lost is not None:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def abort(self) -> None:
        """Close without waiting."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def ended(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    def _read_head(self) -> None:
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _HEAD_CAP:
                self.abort()
            return
        head = bytes(self._head[:end])
        words = head.split(None, 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        del self._head[: end + 4]
        if self.upgraded.done():
            return
        if status == 101 or (status == 200 and _STREAM in head.lower()):
            self._open = True
            assert self._transport is not None  # noqa: S101 - it just received
            self._transport.pause_reading()
            self.upgraded.set_result((101, b""))
        else:
            self.upgraded.set_result((status, bytes(self._head)))

    def _demultiplex(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                part, view = view[: self._left], view[self._left :]
                self._left -= len(part)
                if self._wanted:
                    self._deliver(part)
                continue
            missing = _HEADER.size - len(self._partial)
            self._partial += view[:missing]
            view = view[missing:]
            if len(self._partial) == _HEADER.size:
                kind, self._left = _HEADER.unpack(self._partial)
                self._wanted = kind == _STDOUT
                self._partial.clear()

    def _deliver(self, part: memoryview) -> None:
        inner = self._inner
        if isinstance(inner, asyncio.BufferedProtocol):
            while part:
                room = memoryview(inner.get_buffer(len(part)))
                count = min(len(room), len(part))
                if not count:
                    self.abort()
                    return
                room[:count] = part[:count]
                inner.buffer_updated(count)
                part = part[count:]
        elif isinstance(inner, asyncio.Protocol):
            inner.data_received(bytes(part))


async def attach(engine: Engine, container: str) -> Attached:
    """Attach to a container's stdin and stdout; returns once the Engine has switched over.

    SandboxLostError when there is no such container. Cancellation closes the connection.
    """
    path = ("containers", container, "attach")
    query = {"stream": True, "stdin": True, "stdout": True}
    transport, protocol = await engine.hijack("attach", path, query, Attached)
    try:
        async with asyncio.timeout(SECONDS):
            status, body = await protocol.upgraded
    except TimeoutError:
        transport.abort()
        raise failures.of_deadline("attach", engine.endpoint, SECONDS) from None
    except BaseException:
        transport.abort()
        raise
    if status != 101:
        transport.abort()
        if status in (404, 409):
            raise SandboxLostError("connect: the sandbox has ended", op="connect")
        raise _refused(engine, status, body)
    return protocol


def _refused(engine: Engine, status: int, body: bytes) -> SandboxError:
    """The error for an answer that is no switch: 0 is none, and what succeeds otherwise a page."""
    if not status:
        ended = ConnectionError("the connection ended without an answer")
        return failures.of_connection("attach", engine.endpoint, ended)
    if status < 300:
        return failures.of_answer("attach", engine.endpoint, body)
    return failures.of_status("attach", status, message_of(body))
