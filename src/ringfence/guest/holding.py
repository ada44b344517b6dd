"""Execs that the guest holds, for this session or a later one."""

import asyncio
import errno
import struct
from collections.abc import Callable

from ringfence.errors import SandboxError
from ringfence.guest.asking import Asking, failure_of
from ringfence.guest.attached import Attached
from ringfence.guest.given import whole_number
from ringfence.guest.operation import ANSWER_SECONDS, Question, nothing
from ringfence.guest.protocol import GUEST_IDS, Answer, Ask, Failure, Feature
from ringfence.guest.streams import LAST_OFFSET, Output

_OF_AN_EXEC = (Answer.STARTED, Answer.OUT, Answer.ERR, Answer.STDIN_ACK, Answer.EXIT)


class Holding(Asking):
    """A connection that takes up held execs, and releases them."""

    async def attach(
        self, exec_id: int, stdout_offset: int = 0, stderr_offset: int = 0
    ) -> Attached:
        """Take up a held exec again, its output from these offsets or the oldest bytes still held;
        from its end on where there is less. Its stdin goes on where the guest has it.

        NotFoundError when the guest holds none of that id; StateError when it is in use here.
        Cancellation lets the exec go on without a reader.
        """
        _check(exec_id, "attach")
        whole_number(stdout_offset, "stdout_offset", LAST_OFFSET)
        whole_number(stderr_offset, "stderr_offset", LAST_OFFSET)
        left = self._left(exec_id)
        if left is not None and left.started is not None:
            # Its answer comes first, and would be taken for this one's.
            await asyncio.wait([left.started])
            self.drop(left)
        tells = bool(self.hello.features & Feature.ATTACH_STDIN)
        exec_ = Attached(
            self,
            Output(None, collect=False, start=stdout_offset, jumps=True),
            Output(None, collect=False, start=stderr_offset, jumps=True),
            tells=tells,
        )
        exec_.started = self._loop.create_future()
        self.adopt(exec_, exec_id)
        offsets = struct.pack("<QQ", stdout_offset, stderr_offset)
        self.send(Ask.ATTACH, exec_id, offsets + b"\1" if tells else offsets)
        try:
            refused = await asyncio.shield(exec_.started)
        except asyncio.CancelledError:
            exec_.left = True
            exec_.discard()
            raise
        if refused is not None:
            failure = Failure(refused.errno, refused.stage, refused.detail)
            raise _failure(exec_id, "attach")(failure)
        return exec_

    def _left(self, exec_id: int) -> Attached | None:
        """The exec of that id whose ATTACH was cancelled."""
        found = self._operations.get(exec_id)
        return found if isinstance(found, Attached) and found.left else None

    async def forget(self, exec_id: int) -> None:
        """Release a held exec, killed first when it runs. NotFoundError when there is none;
        StateError when it is in use here. A cancellation while it is killed is raised once it is
        gone; it is not released then."""
        _check(exec_id, "forget")
        left = self._left(exec_id)
        if left is not None:
            await left.abandon()
        question = _Forgetting("forget", Answer.DONE, nothing, _failure(exec_id, "forget"))
        self.adopt(question, exec_id, ANSWER_SECONDS)
        self.send(Ask.FORGET, exec_id)
        await question.future


class _Forgetting(Question[None]):
    """FORGET: what the exec itself still had to say is passed over."""

    __slots__ = ()

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take the answer."""
        return op not in _OF_AN_EXEC and super().receive(op, payload)


def _failure(exec_id: int, op: str) -> Callable[[Failure], SandboxError]:
    return failure_of(op, f"held exec {exec_id}")


def _check(exec_id: int, op: str) -> None:
    """NotFoundError for what is no exec's id."""
    if not 0 < exec_id < GUEST_IDS:
        raise _failure(exec_id, op)(Failure(errno.ESRCH, 0, ""))
