"""Spawned commands, from their start until they are over: the sandbox is in use meanwhile."""

import asyncio
from collections.abc import Callable

from ringfence.errors import ProcessError
from ringfence.guest.execs import Exec
from ringfence.guest.request import NotStarted
from ringfence.sandbox.announcing import Announcing
from ringfence.sandbox.commands import Prepared
from ringfence.sandbox.context import Context
from ringfence.sandbox.measuring import Measured
from ringfence.sandbox.process import Process
from ringfence.spec import ExecResult


class Spawned:
    """The spawned commands of one sandbox. held: those that go on without a holder, by id, each
    with what ends its use of the sandbox."""

    def __init__(self, context: Context, announcing: Announcing) -> None:
        self._context = context
        self._announcing = announcing
        self._measuring: set[asyncio.Future[None]] = set()
        self.held: dict[int, tuple[Exec, Callable[[], None]]] = {}

    async def start(self, prepared: Prepared, measured: Measured | None) -> Exec | NotStarted:
        """Spawn it. measured: its own cgroup, which ends here unless the command started."""
        session = self._context.session
        if measured is None:
            return await session.spawn(prepared.request)
        try:
            started = await session.spawn(measured.within(prepared).request)
        except BaseException:
            await measured.end()
            raise
        if isinstance(started, NotStarted):
            await measured.end()
        measured.begun()
        return started

    def process(
        self, started: Exec, prepared: Prepared, *, held: bool, measured: Measured | None = None
    ) -> Process:
        """What a user holds of a running command; the sandbox is in use until its end."""
        release = self._context.life.use()
        if held:
            self.held[started.id] = (started, release)

        def ended(_: object) -> None:
            if measured is None:
                release()
                self._announcing.exited(started, prepared)
                return
            task = asyncio.ensure_future(measured.end(started.ending))
            self._measuring.add(task)
            task.add_done_callback(told)

        def told(task: asyncio.Future[None]) -> None:
            self._measuring.discard(task)
            release()
            self._announcing.exited(started, prepared)

        started.ended.add_done_callback(ended)
        return Process(started, prepared, held=held, measured=measured)


def did_not_start(outcome: ExecResult) -> ProcessError:
    """The error of a spawn whose program is missing or not executable."""
    return ProcessError(
        f"spawn: {outcome.error}",
        op="spawn",
        context={
            "args": list(outcome.args),
            "exit_code": outcome.exit_code,
            "reason": str(outcome.reason),
        },
    )
