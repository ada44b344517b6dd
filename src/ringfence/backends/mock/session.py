"""One session with the mock's guest: frames, injected faults, and what each operation does."""

import asyncio
import errno
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, cast

from ringfence.backends.mock import execs, serve, transfers
from ringfence.backends.mock.guest import MockGuest
from ringfence.backends.mock.node import failure
from ringfence.backends.mock.script import Fault
from ringfence.backends.mock.users import look_up
from ringfence.errors import GuestError
from ringfence.guest.payload import Payload
from ringfence.guest.protocol import (
    HEADER,
    HELLO_TAIL,
    HOST_FRAME_CAP,
    MARKER_BYTES,
    U32,
    VERSION,
    Answer,
    Ask,
    Feature,
    WriteFlag,
    string,
)

RESERVED_UID = 65501
_FEATURES = Feature.SETFSUID | Feature.WATCH | Feature.ATTACH_STDIN

NAMES = {number: name.lower() for name, number in vars(Ask).items() if name.isupper()}
"""Names of operations, for faults and recorded calls."""


class GuestSession(asyncio.Protocol):
    """One session over one stream, the guest's side."""

    def __init__(self, guest: MockGuest) -> None:
        self._guest = guest
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._transfers: dict[int, transfers.Transfer] = {}
        self._delayed: dict[int, list[tuple[int, bytes]]] = {}
        self._greeted = False
        guest.enter(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport, once."""
        # uvloop's is no asyncio.Transport, but has its methods.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by the transport, last."""
        for transfer in self._transfers.values():
            transfer.close()
        self._transfers.clear()
        self._delayed.clear()
        self._transport = None
        self._guest.leave(self)

    def close(self) -> None:
        """End the session from this side."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came and every frame that is complete now."""
        self._data += data
        at = 0
        while len(self._data) - at >= HEADER.size:
            length, op, operation_id = HEADER.unpack_from(self._data, at)
            if length > HOST_FRAME_CAP or length < 5:
                self.close()
                return
            stop = at + 4 + length
            if stop > len(self._data):
                break
            self._receive(op, operation_id, bytes(self._data[at + HEADER.size : stop]))
            at = stop
        del self._data[:at]

    def _send(self, operation_id: int, op: int, payload: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(HEADER.pack(len(payload) + 5, op, operation_id) + payload)

    def _fail(self, operation_id: int, number: int, stage: int = 0, detail: str = "") -> None:
        self._send(operation_id, Answer.FAIL, serve.failed(number, stage, detail))

    def _receive(self, op: int, operation_id: int, payload: bytes) -> None:
        if operation_id in self._delayed:
            self._delayed[operation_id].append((op, payload))
            return
        name = NAMES.get(op)
        fault = self._guest.script.fault(name) if name is not None else None
        if fault is not None:
            self._hit(fault, op, operation_id, payload)
        else:
            self._dispatch(op, operation_id, payload)

    def _hit(self, fault: Fault, op: int, operation_id: int, payload: bytes) -> None:
        if fault.lose:
            self._guest.die()
        elif fault.hang:
            self._delayed[operation_id] = []
        elif fault.delay:
            self._delayed[operation_id] = [(op, payload)]
            loop = asyncio.get_running_loop()
            loop.call_later(fault.delay, self._undelay, operation_id, fault)
        elif fault.errno:
            self._fail(operation_id, fault.errno, fault.stage, "injected")

    def _undelay(self, operation_id: int, fault: Fault) -> None:
        for op, payload in self._delayed.pop(operation_id, ()):
            if fault.errno:
                self._fail(operation_id, fault.errno, fault.stage, "injected")
                return
            self._dispatch(op, operation_id, payload)

    def _dispatch(self, op: int, operation_id: int, payload: bytes) -> None:
        fields = Payload(payload)
        try:
            if op in serve.BEFORE_PATH:
                self._guest.script.calls.append(serve.recorded(NAMES[op], op, Payload(payload)))
            if op in serve.SHORT:
                answer = serve.SHORT[op](self._guest.tree, fields)
                self._send(operation_id, Answer.DONE, answer)
            elif op in execs.OPS:
                execs.OPS[op](self._guest, operation_id, fields, partial(self._send, operation_id))
            elif op in self._OPS:
                self._OPS[op](self, operation_id, fields)
            elif operation_id in self._transfers:
                self._continue(op, operation_id, payload)
            elif op in execs.TO_A_PROCESS:
                execs.pass_on(self._guest, op, operation_id, fields)
            elif op not in (Ask.FILE_DATA, Ask.FILE_END, Ask.CANCEL):
                self._fail(operation_id, errno.ENOSYS)
        except OSError as error:
            self._fail(operation_id, error.errno or errno.EIO)
        except GuestError:
            self._fail(operation_id, errno.EPROTO)

    # The session.

    def _hello(self, operation_id: int, fields: Payload) -> None:
        guest = self._guest
        version, marker = fields.u32(), fields.raw(MARKER_BYTES)
        fields.raw(MARKER_BYTES)
        fields.u32()
        lifetime, guest.detached = fields.u64(), bool(fields.u8())
        if version != VERSION or self._greeted:
            self._fail(operation_id, errno.EPROTO)
            return
        self._greeted = True
        guest.renew_lifetime(lifetime / 1000)
        guest.epoch += 1
        age = int((time.monotonic() - guest.begun) * 1000)
        tail = HELLO_TAIL.pack(VERSION, _FEATURES, RESERVED_UID, guest.epoch, age)
        self._send(0, Answer.HELLO, marker + tail + string(b"mock"))

    def _ping(self, operation_id: int, fields: Payload) -> None:
        self._send(operation_id, Answer.PONG, fields.rest())

    def _lease(self, operation_id: int, fields: Payload) -> None:
        fields.u32()
        self._guest.renew_lifetime(fields.u64() / 1000)
        self._send(operation_id, Answer.DONE)

    def _shutdown(self, _: int, __: Payload) -> None:
        self._guest.die()

    def _kill_all(self, operation_id: int, _: Payload) -> None:
        self._send(operation_id, Answer.DONE, U32.pack(self._guest.kill_all()))

    def _user(self, operation_id: int, fields: Payload) -> None:
        user = look_up(self._guest.tree, fields.text())
        numbers = (user.uid, user.gid, len(user.groups), *user.groups)
        payload = b"".join(map(U32.pack, numbers))
        for text in (user.name, user.home, user.shell):
            payload += string(text.encode())
        self._send(operation_id, Answer.USER, payload)

    # Files that take more than one frame.

    def _begin(
        self,
        operation_id: int,
        make: Callable[[transfers.Send, Callable[[], None]], transfers.Transfer],
    ) -> None:
        over = False

        def finish() -> None:
            nonlocal over
            over = True
            self._transfers.pop(operation_id, None)

        transfer = make(partial(self._send, operation_id), finish)
        if not over:
            self._transfers[operation_id] = transfer

    def _read(self, operation_id: int, fields: Payload) -> None:
        tree = self._guest.tree
        self._begin(operation_id, lambda *ends: transfers.Read(tree, fields, *ends))

    def _walk(self, operation_id: int, fields: Payload) -> None:
        tree = self._guest.tree
        self._begin(operation_id, lambda *ends: transfers.Walk(tree, fields, *ends))

    def _watch(self, operation_id: int, fields: Payload) -> None:
        tree = self._guest.tree
        self._begin(operation_id, lambda send, _: transfers.Watch(tree, fields, send))

    def _write(self, operation_id: int, fields: Payload) -> None:
        write = serve.Write(self._guest.tree, fields)
        if write.flags & WriteFlag.WHOLE:
            self._send(operation_id, Answer.DONE, write.finish())
        else:
            self._begin(operation_id, lambda *ends: transfers.Write(write, *ends))

    def _continue(self, op: int, operation_id: int, payload: bytes) -> None:
        transfer = self._transfers[operation_id]
        try:
            if op == Ask.CANCEL:
                raise failure(errno.ECANCELED)
            transfer.receive(op, payload)
        except OSError:
            self._transfers.pop(operation_id, None)
            transfer.close()
            raise

    _OPS: ClassVar[dict[int, Callable[["GuestSession", int, Payload], None]]] = {
        Ask.HELLO: _hello,
        Ask.PING: _ping,
        Ask.LEASE: _lease,
        Ask.SHUTDOWN: _shutdown,
        Ask.KILL_ALL: _kill_all,
        Ask.USER: _user,
        Ask.READ: _read,
        Ask.WRITE: _write,
        Ask.WALK: _walk,
        Ask.WATCH: _watch,
    }
