"""What comes from the guest: bytes, taken apart into frames, each for its operation."""

import asyncio
import mmap
import os
from collections.abc import Callable
from functools import partial

from ringfence.errors import GuestError, SandboxError
from ringfence.guest.operation import Operation
from ringfence.guest.payload import malformed
from ringfence.guest.protocol import GUEST_FRAME_CAP, HEADER

_HEADER_BYTES = HEADER.size
_BUFFER_BYTES = GUEST_FRAME_CAP + 4 + 64 * 1024
_LONG_BYTES = 64 * 1024
"""From here up a frame's data may go where they belong without passing the buffer."""
_BETWEEN_BYTES = 16 * 1024
"""What is read at once while such frames are expected, so that little of them has to be moved."""
_OFFSET_BYTES = 8
_READ_ON_BYTES = 4 * 1024 * 1024
_SKIPPED_CAP = 64 * 1024 * 1024


class Incoming(asyncio.BufferedProtocol):
    """The reading side of a session. Its bytes are hostile: what makes no sense ends it (`lose`).

    A long frame that its operation has room for goes there, past the buffer.
    """

    def __init__(self) -> None:
        self._ended: SandboxError | None = None
        self._heard = True
        # A mapping: what no frame has reached takes no memory and no time.
        self._buffer = mmap.mmap(-1, _BUFFER_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._room: memoryview | None = None
        self._filler: Callable[[], None] | None = None
        self.long_reads = 0
        """Operations that have room for long frames; they count themselves."""
        self._descriptor = -1
        self._greeting = b""
        self._skipped = 0
        self._operations: dict[int, Operation] = {}

    def lose(self, error: SandboxError) -> None:
        """End the session because of `error`."""
        raise NotImplementedError

    def _stray(self, op: int, operation_id: int, payload: memoryview) -> None:
        """A frame for no operation that is under way. GuestError when it cannot be."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the transport's interface
        """Where the transport writes what comes next."""
        if self._room is not None:
            return self._view[: min(len(self._room), _BETWEEN_BYTES)]
        stop = self._filled + _BETWEEN_BYTES if self._reads_long else None
        return self._view[self._filled : stop]

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` more bytes and every frame that is complete now."""
        self._heard = True
        if self._room is not None:
            self._room[:nbytes] = self._view[:nbytes]
        self._take(nbytes)
        self._read_on()

    @property
    def _reads_long(self) -> bool:
        """Whether long frames are expected that go past the buffer."""
        return self.long_reads > 0 and self._descriptor >= 0

    def _read_on(self) -> None:
        """Take more of long reads at once: a turn of the event loop costs more than a read."""
        left = _READ_ON_BYTES
        while self._reads_long and self._ended is None and left > 0:
            try:
                nbytes = os.readv(self._descriptor, [self._room or self.get_buffer(0)])
            except OSError:  # nothing is there, or the transport will find out the same
                return
            if not nbytes:
                return
            self._take(nbytes)
            left -= nbytes

    def _take(self, nbytes: int) -> None:
        if self._room is not None:
            self._fill(nbytes)
            return
        self._filled += nbytes
        if self._ended is not None:
            self._filled = 0
            return
        try:
            done = self._skip() if self._greeting else 0
            done = self._frames(done)
        except GuestError as error:
            self.lose(error)
        except Exception as error:  # whatever hostile bytes provoke ends it
            violation = malformed(f"a frame cannot be read ({type(error).__name__}: {error})")
            violation.__cause__ = error
            self.lose(violation)
        else:
            self._keep_from(done)

    def _frames(self, start: int) -> int:
        view = self._view
        filled = self._filled
        operations = self._operations
        unpack = HEADER.unpack_from
        while filled - start >= _HEADER_BYTES and not self._greeting:
            length, op, operation_id = unpack(view, start)
            if not 5 <= length <= GUEST_FRAME_CAP:
                raise malformed(f"a frame of {length} bytes")
            stop = start + 4 + length
            if stop > filled:
                if length >= _LONG_BYTES and self._reads_long and self._make_room(start, stop):
                    start = filled
                break
            payload = view[start + _HEADER_BYTES : stop]
            operation = operations.get(operation_id)
            if operation is None:
                self._stray(op, operation_id, payload)
            elif operation.receive(op, payload):
                operations.pop(operation_id, None)
            start = stop
        return start

    def _make_room(self, start: int, stop: int) -> bool:
        """Let the rest of the frame between go where its operation wants it."""
        begin = start + _HEADER_BYTES + _OFFSET_BYTES
        _, op, operation_id = HEADER.unpack_from(self._view, start)
        operation = self._operations.get(operation_id)
        if operation is None or self._filled < begin:
            return False
        room = operation.room(op, self._view[start + _HEADER_BYTES : begin], stop - begin)
        if room is None:
            return False
        came = self._filled - begin
        room[:came] = self._view[begin : self._filled]
        self._room = room[came:]
        self._filler = partial(operation.filled, len(room))
        return True

    def _fill(self, nbytes: int) -> None:
        room, filler = self._room, self._filler
        self._room = rest = room[nbytes:] if room else None
        if not rest:
            self._room = self._filler = None
            if filler is not None and self._ended is None:
                filler()

    def _forget_room(self) -> None:
        """Nothing comes any more: what a long frame was to fill is no longer in use."""
        if self._room is not None:
            self._room.release()
        self._room = self._filler = None

    def _keep_from(self, start: int) -> None:
        rest = self._filled - start
        if start and rest:
            self._view[:rest] = self._view[start : self._filled]
        self._filled = rest

    def _skip(self) -> int:
        """Where the answer to HELLO begins; what stands before it is not of this session."""
        at = self._buffer.find(self._greeting, 0, self._filled)
        if at >= 4:
            self._greeting = b""
            return at - 4
        if at >= 0:
            raise malformed("HELLO has no length")
        skipped = max(0, self._filled - len(self._greeting) - 4)
        self._skipped += skipped
        if self._skipped > _SKIPPED_CAP:
            raise malformed("too much came before its HELLO")
        return skipped
