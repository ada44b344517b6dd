"""File operations that take more than one frame: what all of them have in common."""

from typing import TYPE_CHECKING

from ringfence.errors import SandboxError
from ringfence.guest.failures import file_error
from ringfence.guest.operation import ANSWER_SECONDS, Operation, lost, overdue
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import Answer, Ask

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection


class Transfer(Operation):
    """What reading, writing, walking and watching have in common: an end, and CANCEL.

    The guest may be silent for a minute, unless it waits for its host. `error` is why it ended
    badly, `over` that it ended.
    """

    __slots__ = ("_connection", "_path", "error", "name", "over")

    def __init__(self, connection: "Connection", name: str, path: bytes) -> None:
        super().__init__()
        self._connection = connection
        self._path = path
        self.name = name
        self.over = False
        self.error: SandboxError | None = None

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take one frame."""
        if op == Answer.DONE:
            fields = Payload(payload)
            self._receive_done(fields)
            fields.end()
            self._finish(None)
            return True
        if op == Answer.FAIL:
            self._finish(file_error(self.name, self._path, Payload(payload).failure()))
            return True
        self.deadline = self._connection.clock() + ANSWER_SECONDS
        self._receive_part(op, payload)
        return False

    def _receive_part(self, op: int, payload: memoryview) -> None:  # noqa: ARG002 - an interface
        raise malformed(f"frame 0x{op:02x} in {self.name}")

    def _receive_done(self, fields: Payload) -> None:
        raise NotImplementedError

    def lose(self, error: SandboxError) -> None:
        """End with SandboxLostError."""
        self._finish(lost(error, self.name))

    def expire(self, now: float) -> SandboxError | None:
        """End with DeadlineExceededError, unless the guest waits for its host."""
        if self._waits_for_host():
            self.deadline = now + ANSWER_SECONDS
            self.overdue = False
        else:
            self.cancel(overdue(self.name))
        return None

    def _waits_for_host(self) -> bool:
        return False

    def _finish(self, error: SandboxError | None) -> None:
        self.over = True
        self.error = self.error or error

    def cancel(self, reason: SandboxError | None = None) -> None:
        """End it from this side; what still comes is ignored. Idempotent."""
        if not self.over:
            self._connection.drop(self)
            self._cancel()
            self._finish(reason)

    def _cancel(self) -> None:
        self._connection.send(Ask.CANCEL, self.id)
