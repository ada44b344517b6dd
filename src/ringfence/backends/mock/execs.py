"""The execs of the mock's guest: from EXEC and ATTACH on, and what is sent to one."""

import errno
import os
import posixpath
import signal
from collections.abc import Callable
from functools import partial
from typing import Final

from ringfence.backends.mock import serve
from ringfence.backends.mock.guest import MockGuest
from ringfence.backends.mock.node import failure
from ringfence.backends.mock.pipes import Receiver
from ringfence.backends.mock.process import KILLED, Asked, Process, Program, directory, variables
from ringfence.backends.mock.script import Recorded
from ringfence.backends.mock.transfers import Send
from ringfence.backends.mock.tree import Tree
from ringfence.guest.payload import Payload
from ringfence.guest.protocol import (
    NO_CAP,
    STDOUT,
    TOLD,
    U32,
    U64,
    Answer,
    Ask,
    ExecFlag,
    Told,
    strings,
)


def _unpacked(fields: Payload) -> Asked:
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


def _list(guest: MockGuest, _: int, __: Payload, send: Send) -> None:
    rows = [
        U32.pack(exec_id)
        + U32.pack(process.pid)
        + bytes((process.exit is not None,))
        + U64.pack(process.out.total)
        + U64.pack(process.err.total)
        + strings(process.asked.args)
        for exec_id, process in guest.processes.items()
    ]
    send(Answer.LIST, U32.pack(len(rows)) + b"".join(rows))


def _exec(guest: MockGuest, exec_id: int, fields: Payload, send: Send) -> None:
    asked = _unpacked(fields)
    if asked.flags & ExecFlag.PTY:
        send(Answer.FAIL, serve.failed(errno.ENOSYS, 5, "the mock has no terminals"))
        return
    try:
        directory(guest.tree, asked.cwd, asked.who)
    except OSError as error:
        send(Answer.FAIL, serve.failed(error.errno or errno.EIO, 3))
        return
    args = tuple(arg.decode("utf-8", "surrogateescape") for arg in asked.args)
    guest.script.calls.append(
        Recorded("exec", args, None, variables(asked.env), os.fsdecode(asked.cwd), asked.who.uid)
    )
    command = guest.find(args)
    if command is None:
        detail = f"the mock has no command {args[0]!r}: script it with MockBackend.on"
        send(Answer.FAIL, serve.failed(_why_not(guest.tree, asked), 4, detail))
        return
    _start(guest, exec_id, asked, command, send)


def _start(guest: MockGuest, exec_id: int, asked: Asked, command: Program, send: Send) -> None:
    stdin = Receiver(_acknowledge(send))
    process = Process(asked, next(guest.pids), guest.tree, stdin)
    stdin.preset(asked.stdin)
    if not asked.flags & ExecFlag.STDIN_OPEN:
        stdin.end()
    guest.processes[exec_id] = process
    send(Answer.STARTED, U32.pack(process.pid))
    process.out.attach(partial(send, Answer.OUT), 0)
    process.err.attach(partial(send, Answer.ERR), 0)
    process.listener = send
    process.start(command, partial(guest.ended, exec_id))


def _acknowledge(send: Send) -> Callable[[int], None]:
    return lambda total: send(Answer.STDIN_ACK, U64.pack(total))


def _attach(guest: MockGuest, exec_id: int, fields: Payload, send: Send) -> None:
    process = guest.processes.get(exec_id)
    stdout, stderr = fields.u64(), fields.u64()
    tells = any(fields.rest())
    if process is None or not process.held:
        raise failure(errno.ESRCH)
    send(Answer.STARTED, _told(process) if tells else U32.pack(process.pid))
    process.listener = send
    process.stdin.attach(_acknowledge(send))
    process.out.attach(partial(send, Answer.OUT), stdout)
    process.err.attach(partial(send, Answer.ERR), stderr)
    if process.exit is not None:
        process.repeat_exit()


def _told(process: Process) -> bytes:
    """STARTED for who asked of its stdin."""
    stdin = process.stdin
    state = Told.STDIN_OPEN
    if not process.asked.flags & ExecFlag.STDIN_OPEN:
        state = Told.STDIN_GIVEN
    elif stdin.ended or process.exit is not None:
        state = 0
    return TOLD.pack(process.pid, state, stdin.received, stdin.taken)


def _forget(guest: MockGuest, exec_id: int, _: Payload, send: Send) -> None:
    process = guest.processes.get(exec_id)
    if process is None or not process.held:
        raise failure(errno.ESRCH)
    del guest.processes[exec_id]
    process.detach()
    process.end(KILLED, signal.SIGKILL)
    send(Answer.DONE, b"")


def _why_not(tree: Tree, asked: Asked) -> int:
    """EACCES for a file that is there, since the mock runs none; else ENOENT."""
    if b"/" not in asked.args[0]:
        return errno.ENOENT
    try:
        tree.find(posixpath.join(asked.cwd, asked.args[0]), asked.who)
    except OSError as error:
        return error.errno or errno.ENOENT
    return errno.EACCES


OPS: Final[dict[int, Callable[[MockGuest, int, Payload, Send], None]]] = {
    Ask.LIST: _list,
    Ask.EXEC: _exec,
    Ask.ATTACH: _attach,
    Ask.FORGET: _forget,
}
"""What begins an exec, or asks of those that are held."""


def _put_stdin(process: Process, fields: Payload) -> None:
    data = fields.rest()
    if not process.asked.flags & ExecFlag.STDIN_OPEN:
        return
    if data:
        process.stdin.put(data)
    else:
        process.stdin.end()


def _ack(process: Process, fields: Payload) -> None:
    sender = process.out if fields.u8() == STDOUT else process.err
    sender.ack(fields.u64())


def _ignore(_: Process, __: Payload) -> None:
    return


TO_A_PROCESS: Final[dict[int, Callable[[Process, Payload], None]]] = {
    Ask.STDIN: _put_stdin,
    Ask.ACK: _ack,
    Ask.SIGNAL: lambda process, fields: process.signal(fields.u32()),
    Ask.KILL: lambda process, _: process.end(KILLED, signal.SIGKILL),
    Ask.RESIZE: _ignore,
}
"""What is sent to an exec; none has an answer."""


def pass_on(guest: MockGuest, op: int, exec_id: int, fields: Payload) -> None:
    """Do what is sent to an exec; nothing when there is none of that number any more."""
    process = guest.processes.get(exec_id)
    if process is not None:
        TO_A_PROCESS[op](process, fields)
