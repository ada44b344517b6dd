"""The mock's guest: an independent second implementation of docs/guest-protocol.md.

`MockGuest` is what outlives a session (the tree, the execs, the lifetime); `GuestStream` is one
session over one stream.
"""

import asyncio
import errno
import itertools
import os
import posixpath
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from ringfence.backends.mock import serve, transfers
from ringfence.backends.mock.builtin import BUILTINS
from ringfence.backends.mock.pipes import Receiver
from ringfence.backends.mock.process import KILLED, Asked, Process, Program, directory, variables
from ringfence.backends.mock.script import Fault, Recorded, Script
from ringfence.backends.mock.shell import Shell
from ringfence.backends.mock.tree import Tree, failure
from ringfence.backends.mock.users import look_up
from ringfence.errors import GuestError
from ringfence.guest.protocol import (
    HEADER,
    HELLO_TAIL,
    HOST_FRAME_CAP,
    MARKER_BYTES,
    NO_CAP,
    STDOUT,
    U32,
    U64,
    VERSION,
    Answer,
    Ask,
    ExecFlag,
    Feature,
    Payload,
    WriteFlag,
    string,
    strings,
)

RESERVED_UID = 65501
_FEATURES = Feature.SETFSUID | Feature.WATCH
_SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash")


class MockGuest:
    """One sandbox's inside."""

    def __init__(self, tree: Tree, script: Script) -> None:
        self.tree = tree
        self.script = script
        self.processes: dict[int, Process] = {}
        self.dead = False
        self.detached = False
        self.epoch = 0
        self.begun = time.monotonic()
        self.pids = itertools.count(2)
        self._stream: GuestStream | None = None
        self._lifetime: asyncio.TimerHandle | None = None

    def find(self, args: tuple[str, ...]) -> Program | None:
        """What runs `args`: scripted commands first, then what every mock has."""
        scripted = self.script.command(args)
        if scripted is not None:
            return scripted
        name = args[0]
        if name in _SHELLS and args[1:2] == ("-c",) and len(args) > 2:
            return lambda process: Shell(process, self.find).run(args[2])
        short = name.removeprefix("/usr").removeprefix("/bin/")
        return BUILTINS.get(short)

    @property
    def held(self) -> bool:
        """Whether a client has a session with it."""
        return self._stream is not None

    def stream(self) -> "GuestStream":
        """The protocol of a new session; the session before ends."""
        if self._stream is not None:
            self._stream.close()
            self.leave(self._stream)
        self._stream = GuestStream(self)
        return self._stream

    def renew_lifetime(self, seconds: float) -> None:
        """End by itself in `seconds`; 0 changes nothing."""
        if seconds:
            if self._lifetime is not None:
                self._lifetime.cancel()
            self._lifetime = asyncio.get_running_loop().call_later(seconds, self.die)

    def leave(self, stream: "GuestStream") -> None:
        """A session ended: attached, all ends; detached, what is held goes on."""
        if self._stream is not stream:
            return
        self._stream = None
        if not self.detached:
            self.die()
            return
        for exec_id, process in list(self.processes.items()):
            if process.held:
                process.detach()
            else:
                process.end(KILLED, signal.SIGKILL)
                del self.processes[exec_id]

    def die(self) -> None:
        """Everything ends."""
        self.dead = True
        if self._lifetime is not None:
            self._lifetime.cancel()
        for process in self.processes.values():
            process.detach()
            process.end(KILLED, signal.SIGKILL)
        self.processes.clear()
        if self._stream is not None:
            self._stream.close()

    def ended(self, exec_id: int, process: Process) -> None:
        """`process` ended and all of its output is on its way."""
        if process.listener is not None:
            process.listener(Answer.EXIT, process.exit or b"")
        if not process.held and self.processes.get(exec_id) is process:
            del self.processes[exec_id]

    def kill_all(self) -> int:
        """Kill every exec that runs."""
        running = [process for process in self.processes.values() if process.exit is None]
        for process in running:
            process.end(KILLED, signal.SIGKILL)
        return len(running)


class GuestStream(asyncio.Protocol):
    """One session, the guest's side."""

    def __init__(self, guest: MockGuest) -> None:
        self._guest = guest
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._transfers: dict[int, transfers.Transfer] = {}
        self._delayed: dict[int, list[tuple[int, bytes]]] = {}
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport, once."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by the transport, last."""
        for transfer in self._transfers.values():
            transfer.close()
        self._transfers.clear()
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
        payload = U32.pack(number) + bytes((stage,)) + string(detail.encode())
        self._send(operation_id, Answer.FAIL, payload)

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
        for op, payload in self._delayed.pop(operation_id):
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
            elif op in self._OPS:
                self._OPS[op](self, operation_id, fields)
            elif operation_id in self._transfers:
                self._continue(op, operation_id, payload)
            elif op in PROCESS_OPS:
                process = self._guest.processes.get(operation_id)
                if process is not None:
                    PROCESS_OPS[op](process, fields)
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

    def _list(self, operation_id: int, _: Payload) -> None:
        rows = [
            U32.pack(exec_id)
            + U32.pack(process.pid)
            + bytes((process.exit is not None,))
            + U64.pack(process.out.total)
            + U64.pack(process.err.total)
            + strings(process.asked.args)
            for exec_id, process in self._guest.processes.items()
        ]
        self._send(operation_id, Answer.LIST, U32.pack(len(rows)) + b"".join(rows))

    # Execs.

    def _exec(self, operation_id: int, fields: Payload) -> None:
        asked = unpack_exec(fields)
        guest = self._guest
        if asked.flags & ExecFlag.PTY:
            self._fail(operation_id, errno.ENOSYS, 5, "the mock has no terminals")
            return
        try:
            directory(guest.tree, asked.cwd, asked.who)
        except OSError as error:
            self._fail(operation_id, error.errno or errno.EIO, 3)
            return
        args = tuple(arg.decode("utf-8", "surrogateescape") for arg in asked.args)
        guest.script.calls.append(
            Recorded(
                "exec", args, None, variables(asked.env), os.fsdecode(asked.cwd), asked.who.uid
            )
        )
        command = guest.find(args)
        if command is None:
            detail = f"the mock has no command {args[0]!r}: script it with MockBackend.on"
            self._fail(operation_id, _why_not(guest.tree, asked), 4, detail)
            return
        self._start(operation_id, asked, command)

    def _start(self, operation_id: int, asked: Asked, command: Program) -> None:
        guest = self._guest
        send = partial(self._send, operation_id)
        stdin = Receiver(lambda total: send(Answer.STDIN_ACK, U64.pack(total)))
        process = Process(asked, next(guest.pids), guest.tree, stdin)
        if asked.flags & ExecFlag.STDIN_OPEN:
            stdin.put(asked.stdin)
        else:
            stdin.preset(asked.stdin)
        guest.processes[operation_id] = process
        send(Answer.STARTED, U32.pack(process.pid))
        process.out.attach(partial(send, Answer.OUT), 0)
        process.err.attach(partial(send, Answer.ERR), 0)
        process.listener = send
        process.start(command, partial(guest.ended, operation_id))

    def _attach(self, operation_id: int, fields: Payload) -> None:
        process = self._guest.processes.get(operation_id)
        stdout, stderr = fields.u64(), fields.u64()
        if process is None or not process.held:
            raise failure(errno.ESRCH)
        send = partial(self._send, operation_id)
        send(Answer.STARTED, U32.pack(process.pid))
        process.listener = send
        process.out.attach(partial(send, Answer.OUT), stdout)
        process.err.attach(partial(send, Answer.ERR), stderr)
        if process.exit is not None:
            process.repeat_exit()

    def _forget(self, operation_id: int, _: Payload) -> None:
        process = self._guest.processes.pop(operation_id, None)
        if process is None or not process.held:
            raise failure(errno.ESRCH)
        process.detach()
        process.end(KILLED, signal.SIGKILL)
        self._send(operation_id, Answer.DONE)

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

    _OPS: ClassVar[dict[int, Callable[["GuestStream", int, Payload], None]]] = {
        Ask.HELLO: _hello,
        Ask.PING: _ping,
        Ask.LEASE: _lease,
        Ask.SHUTDOWN: _shutdown,
        Ask.KILL_ALL: _kill_all,
        Ask.USER: _user,
        Ask.LIST: _list,
        Ask.EXEC: _exec,
        Ask.ATTACH: _attach,
        Ask.FORGET: _forget,
        Ask.READ: _read,
        Ask.WRITE: _write,
        Ask.WALK: _walk,
        Ask.WATCH: _watch,
    }


def _why_not(tree: Tree, asked: Asked) -> int:
    """EACCES for a file that is there, since the mock runs none; else ENOENT."""
    try:
        tree.find(posixpath.join(asked.cwd, asked.args[0]), asked.who)
    except OSError as error:
        return error.errno or errno.ENOENT
    return errno.EACCES if b"/" in asked.args[0] else errno.ENOENT


def unpack_exec(fields: Payload) -> Asked:
    """The payload of EXEC."""
    flags, who = fields.u32(), serve.who(fields)
    timeout, grace = fields.u64() / 1000, fields.u32() / 1000
    stdout_cap, stderr_cap = fields.u64(), fields.u64()
    fields.raw(4)
    for _ in range(fields.count(20)):
        fields.raw(20)
    cwd, args, env = fields.string(), tuple(fields.strings()), tuple(fields.strings())
    return Asked(
        flags,
        who,
        timeout,
        grace,
        None if stdout_cap == NO_CAP else stdout_cap,
        None if stderr_cap == NO_CAP else stderr_cap,
        cwd,
        args,
        env,
        fields.string(),
    )


def _put_stdin(process: Process, fields: Payload) -> None:
    data = fields.rest()
    if data:
        process.stdin.put(data)
    else:
        process.stdin.end()


def _ack(process: Process, fields: Payload) -> None:
    sender = process.out if fields.u8() == STDOUT else process.err
    sender.ack(fields.u64())


def _ignore(_: Process, __: Payload) -> None:
    return


PROCESS_OPS: dict[int, Callable[[Process, Payload], None]] = {
    Ask.STDIN: _put_stdin,
    Ask.ACK: _ack,
    Ask.SIGNAL: lambda process, fields: process.signal(fields.u32()),
    Ask.KILL: lambda process, _: process.end(KILLED, signal.SIGKILL),
    Ask.RESIZE: _ignore,
}
"""What is sent to an exec; none has an answer."""

NAMES = {number: name.lower() for name, number in vars(Ask).items() if name.isupper()}
"""Names of operations, for faults and recorded calls."""
