"""What goes to the guest: frames, one by one or together, and descriptors with them."""

import array
import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Iterator, Sequence

from ringfence.errors import ResourceExhaustedError, UnsupportedError
from ringfence.guest.incoming import Incoming
from ringfence.guest.protocol import head

_JOINED_BYTES = 16 * 1024
_CLEAR_SECONDS = 0.001
WAITING_BYTES = 16 * 1024 * 1024
"""While more than this waits for the guest, nothing that it says is read."""


class Outgoing(Incoming):
    """The writing side of a session, beside its reading side."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._spoke_at = self._loop.time()
        self._held: list[bytes] | None = None

    def pause_writing(self) -> None:
        """Called by the transport: much waits for the guest. What it asks would only add to it."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the transport: the guest took most of what waited."""
        if self._transport is not None:
            self._transport.resume_reading()

    def send(self, op: int, operation_id: int, payload: bytes | memoryview = b"") -> None:
        """Write one frame; nothing happens when the session has ended.

        The memory of `payload` may be read until the guest has answered.
        """
        begin = head(op, operation_id, len(payload))
        if self._held is not None:
            self._held += (begin, bytes(payload))
        elif self._ended is None and self._transport is not None:
            self._spoke_at = self._loop.time()
            if len(payload) > _JOINED_BYTES:
                self._transport.write(begin)
                self._transport.write(payload)
            else:
                self._transport.write(begin + payload)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Have the frames that are sent meanwhile go out at once: each write wakes the guest."""
        held: list[bytes] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        if self._ended is None and self._transport is not None:
            self._spoke_at = self._loop.time()
            self._transport.write(b"".join(held))

    async def clear(self) -> None:
        """Until nothing that was sent waits here, so that `send_with` can go at once, or the end.

        UnsupportedError where something lies between this session and its socket.
        """
        if self._descriptor < 0:
            raise UnsupportedError("this session's stream brings no descriptors", op="session")
        while self._ended is None and not self._is_clear():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_CLEAR_SECONDS)

    def _is_clear(self) -> bool:
        return not self._bytes_waiting() and _is_writable(self._descriptor)

    def _bytes_waiting(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send_with(self, brought: Sequence[int], op: int, operation_id: int, payload: bytes) -> None:
        """`send` a frame that brings descriptors; `clear` came before. ResourceExhaustedError."""
        if self._ended is not None or self._transport is None:
            return
        frame = head(op, operation_id, len(payload)) + payload
        try:
            sent = _send(self._descriptor, frame, brought)
        except OSError as error:
            raise ResourceExhaustedError(
                f"descriptors cannot be passed to the guest: {error.strerror}: try again",
                op="session",
                context={"errno": error.errno},
            ) from None
        self._spoke_at = self._loop.time()
        if sent < len(frame):
            self._transport.write(frame[sent:])


def _is_writable(descriptor: int) -> bool:
    """Whether a socket takes bytes now."""
    asked = select.poll()
    asked.register(descriptor, select.POLLOUT)
    return bool(asked.poll(0))


def _send(descriptor: int, data: bytes, brought: Sequence[int]) -> int:
    """Write the beginning of `data` to a socket, at least a byte, with which descriptors go; how
    many bytes that were. OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", brought))]
    with socket.socket(fileno=os.dup(descriptor)) as stream:
        return stream.sendmsg([data], rights)
