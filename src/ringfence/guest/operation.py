"""What runs over a session: operations, each under an id of its own."""

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from ringfence.errors import DeadlineExceededError, SandboxError, SandboxLostError
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import Answer, Failure

ANSWER_SECONDS = 60.0
"""How long the guest may take for an answer that needs no long work."""

T = TypeVar("T")


class Operation:
    """One id's state on the host's side.

    Life: the session registers it and gives it `id`; `receive` gets each frame of that id until
    it returns True. `deadline` is on the session's clock: when it has passed, `expire` is called.
    """

    __slots__ = ("deadline", "id", "overdue")

    def __init__(self) -> None:
        self.id = 0
        self.deadline = math.inf
        self.overdue = False

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take one frame; True when it was the last. GuestError when it makes no sense.

        The payload's memory is reused as soon as this returns.
        """
        raise NotImplementedError

    def room(self, op: int, payload: memoryview, size: int) -> memoryview | None:  # noqa: ARG002
        """Where the last `size` bytes of a long frame may go at once, None for `receive`.

        payload: the beginning of its payload, which is all that goes elsewhere. `filled` follows
        when they are there.
        """
        return None

    def filled(self, size: int) -> None:
        """The room that was given holds its `size` bytes now."""

    def lose(self, error: SandboxError) -> None:
        """The session ended because of `error`; nothing more comes."""
        raise NotImplementedError

    def expire(self, now: float) -> SandboxError | None:
        """The deadline passed: end and return None, or return why the session is lost."""
        raise NotImplementedError

    def dropped(self) -> None:
        """The session was told to forget it; nothing more comes."""


def lost(reason: SandboxError, op: str) -> SandboxLostError:
    """The error of an operation `op` that was under way when the session ended."""
    error = SandboxLostError(
        f"{op}: the sandbox was lost: {reason.message}", op=op, context=reason.context
    )
    error.__cause__ = reason
    return error


class Question(Operation, Generic[T]):
    """An operation with exactly one answer.

    name: the operation in words, for errors. expect: the answer's op. parse: makes the result
    from its payload. fail: makes the error from a FAIL.
    """

    __slots__ = ("_expect", "_fail", "_parse", "future", "name")

    def __init__(
        self,
        name: str,
        expect: int,
        parse: Callable[[Payload], T],
        fail: Callable[[Failure], SandboxError],
    ) -> None:
        super().__init__()
        self.name = name
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._expect = expect
        self._parse = parse
        self._fail = fail

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take the answer."""
        fields = Payload(payload)
        if op == self._expect:
            result = self._parse(fields)
            fields.end()
            if not self.future.done():
                self.future.set_result(result)
        elif op == Answer.FAIL:
            self._raise(self._fail(fields.failure()))
        else:
            raise malformed(f"frame 0x{op:02x} is no answer to {self.name}")
        return True

    def lose(self, error: SandboxError) -> None:
        """End with SandboxLostError."""
        self._raise(lost(error, self.name))

    def expire(self, now: float) -> SandboxError | None:  # noqa: ARG002 - the interface's
        """End with DeadlineExceededError."""
        self._raise(overdue(self.name))
        return None

    def _raise(self, error: SandboxError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def overdue(name: str) -> DeadlineExceededError:
    """The error of an operation that the guest did not answer in time."""
    return DeadlineExceededError(
        f"{name}: the guest did not answer in time: the sandbox may be overloaded or paused",
        op=name,
    )


def nothing(_: Payload) -> None:
    """The result of an answer without fields."""
