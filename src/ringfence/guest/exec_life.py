"""A command in the sandbox from EXEC to EXIT, as its frames tell."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ringfence.errors import SandboxError, SandboxLostError, StateError
from ringfence.guest.operation import Operation, lost
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import STDERR, STDOUT, U32, U64, Answer, Ask
from ringfence.guest.request import Exit, NotStarted, unpack_exit
from ringfence.guest.streams import Input, Output
from ringfence.spec import Reason

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

OVERTIME_SECONDS = 5.0
"""How long the guest may be silent about an exec after its timeout and grace."""


class ExecLife(Operation):
    """What the guest says of a command, and how that ends.

    Its streams are bytes under flow control. `pid` is its process id inside, 0 before it started.
    `terminal`: whether it has one. `over`: nothing comes any more, and nothing is sent.
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

    @property
    def taken_over(self) -> bool:
        """Whether it ended here because it was attached to again."""
        ended = self.ended
        return ended.done() and not ended.cancelled() and ended.exception() is not None

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
