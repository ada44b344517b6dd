"""The state of one sandbox as its holder knows it, its clocks, and what ends it.

Life: running -> (paused -> running)* -> exited, for one of the reasons in the ledger. Whatever ends
it (a call of `delete`, its lifetime, idleness, the loss of its guest), the same steps follow: the
guest is told, the instance is deleted, the record is closed, the event is published.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

from ringfence.backends.base import Instance, release
from ringfence.backends.finish import begun, finish
from ringfence.errors import SandboxError, SandboxLostError, StateError
from ringfence.events import Deleted, Detached, EventBus, LimitHit, Lost
from ringfence.guest.session import Session
from ringfence.ledger.entry import NEAR_SECONDS
from ringfence.ledger.reasons import DELETED, IDLE, LIFETIME, LOST
from ringfence.sandbox.deleting import DeleteReport, Whole
from ringfence.sandbox.loop import runs
from ringfence.sandbox.records import Records
from ringfence.spec import SandboxSpec, State

DETACHED = "detached"
"""The reason for a holder that left it; the sandbox goes on."""


class Life:
    """See the module. ends: seconds since the epoch, None for no lifetime. rest: what belongs to
    the sandbox besides its instance; closed last. left: whether it goes on without this holder."""

    def __init__(
        self,
        instance: Instance,
        session: Session,
        records: Records,
        bus: EventBus,
        *,
        rest: AsyncExitStack,
        idle_timeout: float | None,
    ) -> None:
        self.id = instance.record.id
        self.instance = instance
        self.session = session
        self.bus = bus
        self.ends = instance.record.ends
        self.state = State.RUNNING
        self.reason: str | None = None
        self.running = 0
        self.left = False
        self._records = records
        self._rest = rest
        self._touched = time.monotonic()
        self._ending: asyncio.Task[DeleteReport] | None = None
        self._loop = asyncio.get_running_loop()
        self._watching: list[asyncio.Task[None]] = []
        self._idle_look: asyncio.TimerHandle | None = None
        self._watched = True
        session.lost.add_done_callback(self._notice)
        if idle_timeout is not None:
            self._look_idle(idle_timeout)

    @property
    def ends(self) -> float | None:
        """When its lifetime is over, in seconds since the epoch."""
        return self._ends

    @ends.setter
    def ends(self, ends: float | None) -> None:
        # Whoever sets the machine's clock changes when it ends on the wall, not when it ends.
        self._ends = ends
        self._due = None if ends is None else _since_boot() + ends - time.time()

    # Before and after every operation.

    def check_loop(self, op: str) -> None:
        """Raise StateError outside of the event loop that opened it."""
        if not runs(self._loop):
            raise StateError(
                f"{op}: the sandbox belongs to the event loop that opened it: open it where it is"
                " used, or use ringfence.sync, which threads may share",
                op=op,
                sandbox_id=self.id,
            )

    def check(self, op: str) -> None:
        """Raise StateError or SandboxLostError unless operations are possible now, and here."""
        self.check_loop(op)
        if self.state is State.RUNNING:
            if self.session.lost.done():
                if not self.instance.record.spec.detached:
                    self._lose()
                raise self.lost(op)
            return
        if self.state is State.PAUSED:
            raise StateError(
                f"{op}: the sandbox is paused: resume it first", op=op, sandbox_id=self.id
            )
        raise self.over(op)

    def over(self, op: str) -> SandboxError:
        """The error for an operation after its end: StateError or SandboxLostError."""
        if self.reason in (DELETED, DETACHED):
            return StateError(
                f"{op}: the sandbox was {self.reason}: open another one", op=op, sandbox_id=self.id
            )
        return self.lost(op)

    @property
    def ended(self) -> bool:
        """Whether it is over, at least for this holder."""
        return self.state is State.EXITED

    @property
    def idle(self) -> float:
        """Seconds since the last command or file operation; 0 while one goes on."""
        return 0.0 if self.running else time.monotonic() - self._touched

    def touch(self) -> None:
        """Something was done with it: it is not idle."""
        self._touched = time.monotonic()

    def use(self) -> Callable[[], None]:
        """Something goes on in it until what is returned is called: it is not idle meanwhile."""
        self.running += 1
        over = False

        def release() -> None:
            nonlocal over
            if not over:
                over = True
                self.running -= 1
                self.touch()

        return release

    def lost(self, op: str) -> SandboxLostError:
        """The error for an operation after the sandbox ended by itself."""
        reason = self.reason or (LIFETIME if self._expired() else LOST)
        if reason != LOST:
            why = f"its {reason} has passed"
        else:
            why = self.session.lost.result().message if self.session.lost.done() else "it ended"
        return SandboxLostError(f"{op}: the sandbox is gone: {why}", op=op, sandbox_id=self.id)

    def blame(self, error: SandboxError) -> None:
        """Write this sandbox's id into an error that came from below."""
        if error.sandbox_id is None:
            error.sandbox_id = self.id

    # Its clocks.

    def _notice(self, _: "asyncio.Future[SandboxError]") -> None:
        if self._watched and not self.ended:
            self.watch(self._take_loss())

    async def _take_loss(self) -> None:
        if self.state is State.EXITED:
            return
        if self.instance.record.spec.detached and await self._goes_on():
            self.bus.publish(Lost(sandbox_id=self.id, message=self.session.lost.result().message))
            self._leave()
            return
        self._lose()

    def _lose(self) -> None:
        """Its guest is gone: say why, once, and end what is left."""
        if self.state is State.EXITED:
            return
        if self._expired():
            self.hit(LIFETIME)
            self.end(LIFETIME)
            return
        self.bus.publish(Lost(sandbox_id=self.id, message=self.session.lost.result().message))
        self.end(LOST)

    async def _goes_on(self) -> bool:
        try:
            return await self.instance.state() is not State.EXITED
        except SandboxError:
            return True

    def _expired(self) -> bool:
        return self._due is not None and _since_boot() >= self._due - NEAR_SECONDS

    def _look_idle(self, timeout: float) -> None:
        left = self._touched + timeout - time.monotonic()
        if self.running:
            self.touch()
            left = timeout
        elif left <= 0 and self.state is State.RUNNING:
            self.hit(IDLE, f"{timeout:g} s without a command or a file operation")
            self.end(IDLE)
            return
        self._idle_look = self._loop.call_later(max(left, 0.05), self._look_idle, timeout)

    # Its end.

    def hit(self, limit: str, detail: str = "", **counters: float) -> None:
        """Say that it met a limit. counters: the kernel's."""
        self.bus.publish(
            LimitHit(sandbox_id=self.id, limit=limit, detail=detail, counters=counters)
        )

    def watch(self, step: Coroutine[Any, Any, None]) -> None:
        """Run `step` beside the sandbox, until it ends."""
        self._watching.append(asyncio.create_task(step))

    def end(self, reason: str, grace: float = 0.0) -> asyncio.Task[DeleteReport]:
        """Begin its end, once, for the first reason that there is."""
        if self._ending is None:
            self.reason = reason
            self.state = State.EXITED
            self._ending = asyncio.create_task(begun(self._end(reason, grace)))
        return self._ending

    async def delete(self, grace: float) -> DeleteReport:
        """TERM to what runs, up to `grace` seconds, then the end of everything. Idempotent.

        Cancellation does not interrupt it and is raised after its end.
        """
        self.check_loop("delete")
        return await finish(self.end(DELETED, grace))

    async def _end(self, reason: str, grace: float) -> DeleteReport:
        whole = Whole(self.id, self.session, self.instance, self._rest, self._records)
        report = await whole.delete(reason, grace)
        self.stop_watching()
        self.bus.publish(Deleted(sandbox_id=self.id, reason=reason))
        return report

    async def detach(self) -> None:
        """End the session and leave the sandbox to its lifetime; wait for its end where that has
        begun. Idempotent."""
        self.check_loop("detach")
        if self._ending is not None:
            await finish(self._ending)
        elif self.state is not State.EXITED:
            self.state, self.reason = State.EXITED, DETACHED
            await finish(self._detach())

    async def _detach(self) -> None:
        self.stop_watching()
        await self.session.close()
        release(self.instance)
        await self._rest.aclose()
        self._leave()

    def _leave(self) -> None:
        """Say that it goes on without this holder, once."""
        if not self.left:
            self.left = True
            self.bus.publish(Detached(sandbox_id=self.id))

    async def extend(self, seconds: float) -> float:
        """End `seconds` from now; the end in seconds since the epoch."""
        ends = time.time() + seconds
        await self._records.extend(self.id, ends)
        await self.session.lease(self.session.lease_seconds, seconds)
        self.ends = ends
        return ends

    async def note(self, spec: SandboxSpec, workspace: Mapping[str, Any] | None = None) -> None:
        """Write down what is granted now, and what of a workspace must be undone."""
        await self._records.changed(self.id, spec, workspace)

    def own(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close this, too, after its instance. It must not have ended yet."""
        self._rest.push_async_callback(close)

    def stop_watching(self) -> None:
        """Let nothing but `delete` end it any more. Idempotent."""
        self._watched = False
        if self._idle_look is not None:
            self._idle_look.cancel()
        for task in self._watching:
            if task is not asyncio.current_task():
                task.cancel()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
