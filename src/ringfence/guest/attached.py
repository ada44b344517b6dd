"""A held exec that was taken up again, by this session or a later one."""

from typing import TYPE_CHECKING

from ringfence.errors import SandboxError
from ringfence.guest.execs import Exec
from ringfence.guest.payload import malformed
from ringfence.guest.protocol import INPUT_WINDOW, TOLD, Answer, Told
from ringfence.guest.streams import Output

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection


class Attached(Exec):
    """A held exec, from ATTACH to EXIT.

    tells: whether the guest was asked of its stdin, which it then says with STARTED; an older one
    cannot be. `left` once nobody waits for its STARTED any more.
    """

    __slots__ = ("_given", "_tells", "_total", "left")

    def __init__(
        self, connection: "Connection", stdout: Output, stderr: Output, *, tells: bool
    ) -> None:
        super().__init__(connection, stdout, stderr)
        self._tells = tells
        self._given = False
        self._total = 0
        self.terminal = True  # for all that is known
        self.left = False

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take one frame of this exec; those before its STARTED are for who had it before."""
        if not self.pid and op not in (Answer.STARTED, Answer.FAIL):
            return False
        return super().receive(op, payload)

    def _receive_started(self, payload: memoryview) -> bool:
        if not self._tells:
            return super()._receive_started(payload)
        pid, told, sent, acked = TOLD.unpack(payload)
        if not acked <= sent <= acked + INPUT_WINDOW:
            raise malformed("input beyond its window")
        self.terminal = bool(told & Told.TERMINAL)
        self._given = bool(told & Told.STDIN_GIVEN)
        self._total = sent
        if told & Told.STDIN_OPEN:
            self.open_stdin(sent, acked)
        return self._start(pid)

    def lose(self, error: SandboxError) -> None:
        """End as SANDBOX_LOST, with the output so far."""
        if self.left and self.started is not None and not self.started.done():
            self.started.cancel()
        super().lose(error)

    @property
    def stdin_total(self) -> int | None:
        """As of every exec."""
        if not self._tells:
            return None
        return self._total if self.stdin is None else self.stdin.total

    @property
    def unwritable(self) -> str:
        """As of every exec."""
        if self.over or self.stdin is not None or self._given:
            return super().unwritable
        if self._tells:
            return "does not take input any more: its stdin was closed before it was attached to"
        return (
            "was attached to, and the guest of its sandbox is older than this Ringfence: it does "
            "not tell whether the stdin is open"
        )
