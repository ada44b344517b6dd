"""How a command is sent to the guest, and its input after it."""

import asyncio
import math
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from ringfence.errors import SandboxError
from ringfence.guest import exec_life
from ringfence.guest.execs import Exec
from ringfence.guest.given import content
from ringfence.guest.pieces import CHUNK_BYTES
from ringfence.guest.protocol import Ask, ExecFlag
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.guest.streams import Output

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection


def begin(
    connection: "Connection", request: ExecRequest, *, collect: bool, tell: bool = False
) -> Exec:
    """Send EXEC and return its Exec. InvalidSpecError before anything is sent.

    For a request with cgroups the connection is clear. tell: whether somebody waits for its
    start; only for a guest with Feature.TELL_START.
    """
    held = bool(request.flags & ExecFlag.HOLD)
    exec_ = Exec(
        connection,
        Output(request.stdout_cap, collect=collect, jumps=held),
        Output(request.stderr_cap, collect=collect, jumps=held),
    )
    stdin = request.stdin
    flags = request.flags
    at_once = isinstance(stdin, bytes) and len(stdin) <= CHUNK_BYTES
    if at_once and collect:
        flags &= ~ExecFlag.STDIN_OPEN
    elif not at_once:
        flags |= ExecFlag.STDIN_OPEN
    if tell:
        flags |= ExecFlag.TELL_START
    payload = request.pack(flags, stdin if at_once else b"")  # type: ignore[arg-type]
    allowed = math.inf
    if request.timeout is not None:
        allowed = request.timeout + request.grace + exec_life.OVERTIME_SECONDS
    exec_.terminal = bool(flags & ExecFlag.PTY)
    operation_id = connection.register(exec_, allowed)
    try:
        if request.cgroups:
            connection.send_with(request.cgroups, Ask.EXEC, operation_id, payload)
        else:
            connection.send(Ask.EXEC, operation_id, payload)
    except SandboxError:
        connection.drop(exec_)
        raise
    if flags & ExecFlag.STDIN_OPEN:
        source = exec_.open_stdin()
        if isinstance(stdin, bytes) and not at_once:
            source.feed(stdin)
    return exec_


async def feed(exec_: Exec, source: AsyncIterable[bytes]) -> Exit | NotStarted:
    """Write all of `source` to the exec's stdin while waiting for its end.

    What `source` raises is raised, after a kill; cancellation kills too, and goes before that.
    """
    feeding = asyncio.create_task(_pump(source, exec_))
    either: list[asyncio.Future[Any]] = [exec_.ended, feeding]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if feeding.done():
            feeding.result()
        return await exec_.ended
    except BaseException:
        await exec_.abandon()
        raise
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def _pump(source: AsyncIterable[bytes], exec_: Exec) -> None:
    async for chunk in source:
        if not await exec_.write(content(chunk, "stdin")):
            return
    exec_.write_eof()
