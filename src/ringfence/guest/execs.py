"""One command in the sandbox, seen from the host."""

import asyncio
import math
from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any

from ringfence.errors import SandboxError, SandboxLostError, StateError
from ringfence.guest.operation import Operation, lost
from ringfence.guest.protocol import (
    STDERR,
    STDOUT,
    U32,
    U64,
    Answer,
    Ask,
    ExecFlag,
    Payload,
    content,
    malformed,
    whole_number,
)
from ringfence.guest.request import ExecRequest, Exit, NotStarted, unpack_exit
from ringfence.guest.streams import CHUNK_BYTES, Input, Output
from ringfence.spec import Reason

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

_LAST_SIGNAL = 64
LAST_COLUMN = 65535
ABANDON_SECONDS = 5.0
"""How long a killed exec may take to be gone before its sandbox is given up."""
OVERTIME_SECONDS = 5.0
"""How long the guest may be silent about an exec after its timeout and grace."""


class Exec(Operation):
    """A command, from EXEC to EXIT.

    Its streams are bytes under flow control: a command whose output nobody reads waits. `pid` is
    its process id inside, 0 before it started. `terminal`: whether it has one.
    """

    __slots__ = (
        "_connection",
        "_leave",
        "ended",
        "over",
        "pid",
        "started",
        "stderr",
        "stdin",
        "stdout",
        "terminal",
    )

    def __init__(self, connection: "Connection", stdout: Output, stderr: Output) -> None:
        super().__init__()
        self._connection = connection
        self._leave: Callable[[], None] | None = None
        self.pid = 0
        self.terminal = False
        self.over = False
        self.stdout = stdout
        self.stderr = stderr
        self.stdin: Input | None = None
        self.started: asyncio.Future[NotStarted | None] | None = None
        self.ended: asyncio.Future[Exit | NotStarted] = asyncio.get_running_loop().create_future()

    # Frames.

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take one frame of this exec."""
        if op in (Answer.OUT, Answer.ERR):
            self._receive_output(op, payload)
            return False
        if op == Answer.EXIT:
            return self._receive_exit(payload)
        if op == Answer.STARTED:
            return self._receive_started(payload)
        if op == Answer.STDIN_ACK:
            if self.stdin is not None:
                self.stdin.acked(U64.unpack(payload)[0])
            return False
        if op == Answer.FAIL:
            failure = Payload(payload).failure()
            if self.pid:  # what was sent to it was wrong: its own end follows
                return False
            self._finish(NotStarted(failure.errno, failure.stage, failure.detail))
            return True
        raise malformed(f"frame 0x{op:02x} in an exec")

    def _receive_output(self, op: int, payload: memoryview) -> None:
        if not self.pid:
            raise malformed("output before the start")
        stream, output = (STDOUT, self.stdout) if op == Answer.OUT else (STDERR, self.stderr)
        if output.add(U64.unpack_from(payload)[0], payload[8:]):
            self._ack(stream, output)

    def _receive_started(self, payload: memoryview) -> bool:
        return self._start(U32.unpack(payload)[0])

    def _start(self, pid: int) -> bool:
        if self.pid or not pid:
            raise malformed("an exec started twice or as process 0")
        self.pid = pid
        if self.started is not None and not self.started.done():
            self.started.set_result(None)
        return False

    def _receive_exit(self, payload: memoryview) -> bool:
        if not self.pid:
            raise malformed("an end before the start")
        out, err = self.stdout, self.stderr
        ending = unpack_exit(payload, bytes(out.data), bytes(err.data))
        if not (out.may_end_at(ending.stdout_total) and err.may_end_at(ending.stderr_total)):
            raise malformed("less output in all than was sent")
        self._finish(ending)
        return True

    def _finish(self, ending: Exit | NotStarted) -> None:
        if self.started is not None and not self.started.done():
            self.started.set_result(ending if isinstance(ending, NotStarted) else None)
        if not self.ended.done():
            self.ended.set_result(ending)
        self._close()

    def _close(self) -> None:
        """Nothing comes any more, and nothing is sent."""
        self.over = True
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
        if self.stdin is not None:
            self.stdin.end()
        self.stdout.wake()
        self.stderr.wake()

    @property
    def ending(self) -> Exit | NotStarted | None:
        """How it ended; None before that, and for one that was forgotten."""
        ended = self.ended
        if not self.over or not ended.done() or ended.cancelled() or ended.exception():
            return None
        return ended.result()

    def occupy(self, leave: Callable[[], None]) -> None:
        """`leave` is called once, at its end or when the session forgets it."""
        self._leave = leave

    def dropped(self) -> None:
        """End here with StateError: whoever took up the exec again has its streams and its end."""
        if not self.ended.done():
            self.ended.set_exception(
                StateError(f"exec {self.id} was attached to again: go on with that one", op="exec")
            )
            self.ended.exception()  # nobody may wait for it
        self._close()

    def lose(self, error: SandboxError) -> None:
        """End as SANDBOX_LOST, with the output so far."""
        if self.started is not None and not self.started.done():
            self.started.set_exception(lost(error, "exec"))
        self._finish(
            Exit(
                Reason.SANDBOX_LOST,
                bytes(self.stdout.data),
                bytes(self.stderr.data),
                stdout_total=self.stdout.end,
                stderr_total=self.stderr.end,
            )
        )

    def expire(self, now: float) -> SandboxError | None:
        """The guest should have ended it long ago, unless it waits for a reader on our side."""
        if self.stdout.consumed < self.stdout.end or self.stderr.consumed < self.stderr.end:
            self.deadline = now + OVERTIME_SECONDS
            self.overdue = False
            return None
        return SandboxLostError(
            f"its guest did not end exec {self.id} at its timeout", context={"exec": self.id}
        )

    def _ack(self, stream: int, output: Output) -> None:
        self._connection.send(Ask.ACK, self.id, output.ack(stream))

    def open_stdin(self, sent: int = 0, acked: int = 0) -> Input:
        """The exec's input stream. sent, acked: bytes of it in earlier sessions."""
        connection, operation_id = self._connection, self.id
        self.stdin = Input(
            lambda chunk: connection.send(Ask.STDIN, operation_id, chunk), sent=sent, acked=acked
        )
        return self.stdin

    @property
    def stdin_total(self) -> int | None:
        """Bytes that were sent to its stdin, those of earlier sessions that arrived included; None
        where the guest does not tell."""
        return 0 if self.stdin is None else self.stdin.total

    @property
    def unwritable(self) -> str:
        """Why nothing can be written to its stdin, in words that follow on its name."""
        if self.stdin is None and not self.over:
            return "got all of its stdin when it was started"
        return "does not take input any more: it ended, or its stdin was closed"

    # What a user of a spawned exec does.

    async def read(self, stream: int = STDOUT, size: int = CHUNK_BYTES) -> bytes:
        """1 to `size` bytes of STDOUT or STDERR as soon as there are any; b"" at the end.

        The end is the exec's end; after a lost sandbox it is the end of what was received.
        Cancellation loses nothing. One reader per stream.
        """
        output = self.stdout if stream == STDOUT else self.stderr
        while not output.data:
            if self.over:
                return b""
            await output.wait()
        chunk = output.take(size)
        if output.wants_ack and not self.over:
            self._ack(stream, output)
        return chunk

    async def write(self, data: bytes | memoryview) -> bool:
        """Send all of `data` to its stdin; False when the exec ended before taking it.

        Waits while the command does not read. Cancellation leaves a part of it sent.
        """
        return self.stdin is not None and await self.stdin.write(data)

    def write_eof(self) -> None:
        """End its stdin. Idempotent."""
        if self.stdin is not None:
            self.stdin.close()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send signal `number` to its main process, or to that one's process group."""
        whole_number(number, "signal", _LAST_SIGNAL, 1)
        if not self.over:
            self._connection.send(Ask.SIGNAL, self.id, U32.pack(number) + bytes((group,)))

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        whole_number(rows, "rows", LAST_COLUMN, 1)
        whole_number(columns, "columns", LAST_COLUMN, 1)
        if not self.ended.done():
            size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
            self._connection.send(Ask.RESIZE, self.id, size)

    def kill(self) -> None:
        """Kill its whole family; after its end, what it left running.

        Output that nobody reads does not hold up its end any more: what is above a window is
        dropped.
        """
        self._connection.send(Ask.KILL, self.id)
        if not self.over:
            for stream, output in ((STDOUT, self.stdout), (STDERR, self.stderr)):
                output.open_wide()
                self._ack(stream, output)

    def discard(self) -> None:
        """Drop all output, past and to come, so that nothing waits for a reader."""
        for stream, output in ((STDOUT, self.stdout), (STDERR, self.stderr)):
            output.discard()
            if not self.over:
                self._ack(stream, output)

    async def wait(self) -> Exit | NotStarted:
        """How it ended, once it has; the output that was not read can still be read.

        The end comes after all output, so read it, discard() it or kill(). Cancellation changes
        nothing. NotStarted comes only for an exec that was attached to. StateError once it was
        attached to again.
        """
        return await asyncio.shield(self.ended)

    async def abandon(self) -> None:
        """Kill it and wait until it is gone, at most 5 s, whatever is cancelled meanwhile.

        A guest that does not manage is given up: the session is lost.
        """
        if self.over:
            return
        if self.ended.cancelled():
            # The awaiting task's cancellation took the future along; the exec itself goes on.
            self.ended = asyncio.get_running_loop().create_future()
        self.discard()
        self.kill()
        clock = asyncio.get_running_loop().time
        until = clock() + ABANDON_SECONDS
        while not self.over and (left := until - clock()) > 0:
            try:
                await asyncio.wait([self.ended], timeout=left)
            except asyncio.CancelledError:
                continue
        if not self.over:
            self._connection.lose(
                SandboxLostError(f"its guest did not kill exec {self.id} within 5 s", op="exec")
            )


def begin(connection: "Connection", request: ExecRequest, *, collect: bool) -> Exec:
    """Send EXEC and return its Exec. InvalidSpecError before anything is sent.

    For a request with cgroups the connection is clear.
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
    payload = request.pack(flags, stdin if at_once else b"")  # type: ignore[arg-type]
    allowed = math.inf
    if request.timeout is not None:
        allowed = request.timeout + request.grace + OVERTIME_SECONDS
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

    What `source` raises is raised, after a kill; cancellation kills too.
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
